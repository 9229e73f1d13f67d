"""What is installed, what falls back to what, and what to do about each problem.

Every check survives a missing or broken package: finding that out is its purpose.
"""

import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from emae_mm.cores import available_cores

OK, WARN, FAIL = "ok", "warn", "fail"
STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}
GIB = 1024**3

# distribution -> (module, the upstream distribution that installs the same module)
ONEDL = {
    "onedl-mmengine": ("mmengine", "mmengine"),
    "onedl-mmcv": ("mmcv", "mmcv"),
    "onedl-mmdetection": ("mmdet", "mmdet"),
    "onedl-mmpretrain": ("mmpretrain", "mmpretrain"),
    "onedl-mmsegmentation": ("mmseg", "mmsegmentation"),
}
OTHERS = ("timm", "numpy", "scipy", "scikit-learn", "scikit-image", "pycocotools", "safetensors")


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: what was looked at.
        status: ``'ok'``, ``'warn'`` (works, with less) or ``'fail'`` (something will not run).
        detail: what was found.
        fix: what to do about it; empty where there is nothing to do.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


def installed_version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def try_import(module: str) -> tuple[ModuleType | None, str]:
    """The module, or None and the reason; a broken package may raise anything on import."""
    try:
        return importlib.import_module(module), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def _release(text: str) -> tuple[int, ...]:
    from packaging.version import Version

    return Version(text).release


def check_python() -> Check:
    """Python 3.10 to 3.12."""
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    fix = "" if supported else "use Python 3.10, 3.11 or 3.12"
    return Check("Python", OK if supported else FAIL, platform.python_version(), fix)


def check_torch() -> Check:
    """Torch is 2.6 or later; which kernels it has for this CPU."""
    torch, reason = try_import("torch")
    if torch is None:
        return Check("torch", FAIL, reason, "pip install 'torch>=2.6' torchvision")
    if _release(torch.__version__) < (2, 6):
        return Check("torch", FAIL, torch.__version__, "pip install -U 'torch>=2.6' torchvision")
    return Check("torch", OK, f"{torch.__version__}, CPU kernels {torch.backends.cpu.get_cpu_capability()}")


def check_torchvision() -> Check:
    """Torchvision's compiled operators answer, which they do only beside the torch they were built for."""
    torchvision, reason = try_import("torchvision")
    if torchvision is not None:
        try:
            import torch

            kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.5, 0.9]), 0.5)
            if kept.tolist() == [1]:
                return Check("torchvision", OK, f"{torchvision.__version__}, operators run")
            reason = f"nms kept {kept.tolist()} instead of [1]"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return Check("torchvision", FAIL, reason, "install the torchvision release that belongs to this torch")


def check_onedl(distribution: str) -> Check:
    """One fork of OpenMMLab is installed, and its upstream, which has the same module name, is not."""
    module, upstream = ONEDL[distribution]
    found, rival = installed_version(distribution), installed_version(upstream)
    if found is None:
        detail = f"not installed ({upstream} {rival} is)" if rival else "not installed"
        before = f"pip uninstall {upstream}; " if rival else ""
        return Check(distribution, FAIL, detail, f"{before}pip install -c constraints.txt {distribution}")
    if rival is not None:
        fix = f"pip uninstall {upstream} {distribution}; pip install -c constraints.txt {distribution}"
        return Check(distribution, FAIL, f"{found}, and {upstream} {rival} in the same folder {module}/", fix)
    return Check(distribution, OK, found)


def check_package(distribution: str) -> Check:
    """A required package is installed."""
    found = installed_version(distribution)
    if found is None:
        return Check(distribution, FAIL, "not installed", f"pip install -c constraints.txt {distribution}")
    return Check(distribution, OK, found)


def check_transformers() -> Check:
    """No transformers, or one that mmpretrain can be imported beside: with 5 and later its import fails."""
    found = installed_version("transformers")
    if found is None:
        return Check("transformers", OK, "not installed, only tests use it")
    if _release(found) >= (5,):
        fix = "pip install 'transformers<5': onedl-mmpretrain cannot be imported beside this one"
        return Check("transformers", FAIL, found, fix)
    return Check("transformers", OK, found)


def check_operators() -> Check:
    """Whether mmcv's operators are compiled or served by the stand-in."""
    from emae_mm.ops import operators_in_use

    found = operators_in_use()
    if found == "compiled":
        return Check("mmcv operators", OK, "compiled extension")
    if found == "no mmcv":
        return Check("mmcv operators", FAIL, "mmcv is not installed", "pip install -c constraints.txt onedl-mmcv")
    detail = "not compiled: nms, soft-nms and RoIAlign come from torchvision and torch"
    return Check("mmcv operators", OK, detail, "only for other operators: docs/compiled-ops.md")


def check_cv2() -> Check:
    """OpenCV can be imported; the build with windows needs libGL."""
    cv2, reason = try_import("cv2")
    if cv2 is not None:
        return Check("cv2", OK, getattr(cv2, "__version__", "unknown version"))
    found = installed_version("opencv-python-headless") or installed_version("opencv-python")
    pin = f"=={found}" if found else ""
    return Check("cv2", FAIL, reason, f"pip install --force-reinstall --no-deps opencv-python-headless{pin}")


def check_gpu() -> Check:
    """CUDA devices, bfloat16 on them, and NCCL."""
    torch, _ = try_import("torch")
    if torch is None:
        return Check("GPU", WARN, "unknown: no torch")
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for the CPU"
        return Check("GPU", WARN, f"none usable ({built})", "full-size runs need one; the demonstration does not")
    names = ", ".join(sorted({torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}))
    nccl = "NCCL" if torch.distributed.is_nccl_available() else "no NCCL: one GPU at a time"
    bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
    return Check("GPU", OK, f"{torch.cuda.device_count()} x {names}, CUDA {torch.version.cuda}, {bf16}, {nccl}")


def check_cpu_bf16() -> Check:
    """Whether the CPU computes in bfloat16, or only emulates it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    except OSError:
        return Check("bf16 on the CPU", WARN, "unknown on this system")
    found = [name for name, flag in (("AMX", "amx_bf16"), ("AVX512-bf16", "avx512_bf16")) if flag in flags]
    if found:
        return Check("bf16 on the CPU", OK, ", ".join(found))
    return Check("bf16 on the CPU", WARN, "emulated", "stay with float32 on this CPU: bf16 would be slower")


def check_setuptools() -> Check:
    """Mmengine imports distutils, which Python 3.12 has only through setuptools."""
    module, reason = try_import("setuptools")
    if module is None:
        return Check("setuptools", FAIL, reason, "pip install setuptools")
    return Check("setuptools", OK, module.__version__)


def check_compiler() -> Check:
    """torch.compile on the CPU needs a C++ compiler that runs."""
    compiler = os.environ.get("CXX", "g++")
    try:
        done = subprocess.run(
            [compiler, "-dumpfullversion", "-dumpversion"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        done = None
    if done is None or done.returncode != 0:
        return Check("torch.compile", WARN, f"no working {compiler}", "install g++; without it models run uncompiled")
    return Check("torch.compile", OK, f"{compiler} {done.stdout.strip()}")


def check_space(name: str, folder: str, wanted: float, fix: str) -> Check:
    """Free space in ``folder``; a warning below ``wanted`` GiB."""
    try:
        free = shutil.disk_usage(folder).free / GIB
    except OSError as error:
        return Check(name, WARN, f"{folder}: {error.strerror}", fix)
    status = OK if free >= wanted else WARN
    return Check(name, status, f"{free:.1f} GiB free in {folder}", "" if status == OK else fix)


def check_cores() -> Check:
    """Cores this process may use."""
    return Check("CPU cores", OK, str(available_cores()))


def checks() -> list[tuple[str, Callable[[], Check]]]:
    """All checks with their names, in the order of the table."""
    return [
        ("Python", check_python),
        ("torch", check_torch),
        ("torchvision", check_torchvision),
        *((name, lambda name=name: check_onedl(name)) for name in ONEDL),
        ("mmcv operators", check_operators),
        ("cv2", check_cv2),
        *((name, lambda name=name: check_package(name)) for name in OTHERS),
        ("transformers", check_transformers),
        ("setuptools", check_setuptools),
        ("GPU", check_gpu),
        ("bf16 on the CPU", check_cpu_bf16),
        ("torch.compile", check_compiler),
        ("CPU cores", check_cores),
        ("disk", lambda: check_space("disk", os.getcwd(), 2.0, "free some space: checkpoints are kept here")),
        (
            "shared memory",
            lambda: check_space("shared memory", "/dev/shm", 1.0, "in a container --shm-size=8g, or num_workers=0"),
        ),
    ]


def collect() -> list[Check]:
    """Run every check; one that fails in an unforeseen way is itself a line of the table."""
    found = []
    for name, check in checks():
        try:
            found.append(check())
        except Exception as error:
            found.append(Check(name, FAIL, f"the check broke: {type(error).__name__}: {error}"))
    return found


def render(found: list[Check], console=None) -> None:
    """Print the checks as a table; as plain lines where rich is missing.

    Args:
        found: what :func:`collect` returned.
        console: a ``rich.console.Console``; a new one where None.
    """
    rich, _ = try_import("rich.table")
    if rich is None:
        for check in found:
            print(f"{check.status:4}  {check.name}: {check.detail}" + (f"  -> {check.fix}" if check.fix else ""))
        return
    from rich.console import Console
    from rich.text import Text

    table = rich.Table("", "what", "found", "what to do")
    for check in found:
        status = Text(check.status, style=STYLES[check.status])
        table.add_row(status, Text(check.name), Text(check.detail), Text(check.fix))
    (console or Console()).print(table)


def main() -> int:
    """Collect and print.

    Returns:
        The exit status: 1 where any check failed, otherwise 0.
    """
    found = collect()
    render(found)
    return int(any(check.status == FAIL for check in found))
