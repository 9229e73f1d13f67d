"""The doctor reports what is there and survives what is not."""

import importlib
import io
import subprocess
import sys

import pytest
from rich.console import Console

from emae_mm import doctor


@pytest.fixture
def without(monkeypatch):
    """A function that makes modules fail on import and distributions look uninstalled."""

    def hide(*names: str, error: Exception | None = None) -> None:
        real_import, real_version = importlib.import_module, doctor.installed_version

        def import_module(name, *args):
            if name.partition(".")[0] in names:
                raise error or ModuleNotFoundError(f"No module named {name!r}")
            return real_import(name, *args)

        monkeypatch.setattr(doctor.importlib, "import_module", import_module)
        monkeypatch.setattr(doctor, "installed_version", lambda name: None if name in names else real_version(name))

    return hide


def test_this_environment_has_no_failure_in_what_the_tests_themselves_use():
    found = {check.name: check for check in doctor.collect()}
    for name in ("Python", "torch", "torchvision", "mmcv operators", "setuptools", *doctor.ONEDL, *doctor.OTHERS):
        assert found[name].status == doctor.OK, found[name]
    assert all(check.fix for check in found.values() if check.status == doctor.FAIL)


def test_missing_packages_are_failures_with_a_command(without):
    without("torch", "torchvision", "timm", "onedl-mmcv", "setuptools")
    found = {check.name: check for check in doctor.collect()}
    for name in ("torch", "torchvision", "timm", "onedl-mmcv", "setuptools"):
        assert found[name].status == doctor.FAIL
        assert "install" in found[name].fix
    assert found["GPU"].status == doctor.WARN
    assert found["numpy"].status == doctor.OK


def test_cv2_without_libgl_gives_the_command_that_mends_it(without, monkeypatch):
    without("cv2", error=ImportError("libGL.so.1: cannot open shared object file"))
    monkeypatch.setattr(doctor, "installed_version", lambda name: "4.12.0.88")
    check = doctor.check_cv2()
    assert (check.status, "libGL.so.1" in check.detail) == (doctor.FAIL, True)
    assert check.fix.endswith("--force-reinstall --no-deps opencv-python-headless==4.12.0.88")


@pytest.mark.parametrize("fork", [None, "2.3.6"])
def test_upstream_openmmlab_in_the_same_folder_is_a_failure(monkeypatch, fork):
    monkeypatch.setattr(doctor, "installed_version", {"onedl-mmcv": fork, "mmcv": "2.1.0"}.get)
    check = doctor.check_onedl("onedl-mmcv")
    assert check.status == doctor.FAIL
    assert "mmcv 2.1.0" in check.detail and "pip uninstall mmcv" in check.fix


@pytest.mark.parametrize(("version", "status"), [("5.23.0", doctor.FAIL), ("4.57.6", doctor.OK), (None, doctor.OK)])
def test_transformers_that_break_mmpretrain_are_a_failure(monkeypatch, version, status):
    monkeypatch.setattr(doctor, "installed_version", lambda name: version)
    check = doctor.check_transformers()
    assert check.status == status and ("transformers<5" in check.fix) == (status == doctor.FAIL)


def test_little_space_and_no_compiler_are_warnings(monkeypatch):
    assert doctor.check_space("disk", "/", 1e9, "make room").fix == "make room"
    assert doctor.check_space("disk", "/does/not/exist", 1.0, "make room").status == doctor.WARN
    monkeypatch.setenv("CXX", "/does/not/exist/g++")
    assert doctor.check_compiler().status == doctor.WARN


def test_the_exit_status_says_whether_anything_failed(monkeypatch, capsys):
    def broken():
        raise RuntimeError("unforeseen [bold]")

    monkeypatch.setattr(doctor, "checks", lambda: [("Python", doctor.check_python)])
    assert doctor.main() == 0
    monkeypatch.setattr(doctor, "checks", lambda: [("odd", broken), ("Python", doctor.check_python)])
    assert doctor.main() == 1
    out = capsys.readouterr().out  # brackets are text, not markup
    assert "unforeseen" in out and "[bold]" in out


def test_the_table_is_plain_lines_without_rich(without, capsys):
    found = [doctor.Check("cv2", doctor.FAIL, "broken", "mend it")]
    out = io.StringIO()
    doctor.render(found, Console(file=out, width=80))
    assert "mend it" in out.getvalue()
    without("rich")
    doctor.render(found)
    assert capsys.readouterr().out == "fail  cv2: broken  -> mend it\n"


def test_importing_the_doctor_loads_no_heavy_package():
    code = "import sys, emae_mm.doctor; print([m for m in ('torch', 'mmengine', 'rich') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
