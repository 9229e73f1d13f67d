"""Suites: their plan, their progress line, and what is refused."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from emae_mm.errors import ConfigError
from emae_mm.suite.plan import Suite, load_suite, plan
from emae_mm.suite.progress import StageProgress, clock

CONFIG = "pretrain/emae_vit-base-p16_8xb512-300e_in1k.py"
OTHER = "pretrain/mae_vit-base-p16_8xb512-300e_in1k.py"


def example(**kwargs) -> Suite:
    return Suite(
        name="example",
        pretrain={"EMAE": dict(config=CONFIG, data="a")},
        transfer={"linear": dict(config=OTHER, data="b"), "knn": dict(config=OTHER, data="b")},
        baselines={"random init": "random"},
        **kwargs,
    )


def test_every_method_meets_every_task_and_the_leaderboard_is_last():
    stages = plan(example(reconstruct=dict(data="a")), Path("data"), Path("out"))
    assert [s.title for s in stages] == [
        "pre-train EMAE",
        "linear, EMAE",
        "linear, random init",
        "knn, EMAE",
        "knn, random init",
        "reconstructions",
        "leaderboard",
    ]
    transfers = {s.title: s for s in stages if s.kind == "transfer"}
    assert transfers["knn, EMAE"].pretrained == str(Path("out/emae/pretrain/encoder.pth"))
    assert transfers["knn, random init"].pretrained == "random"
    assert transfers["knn, EMAE"].data_root == Path("data/b")
    assert len({s.work_dir for s in stages}) == len(stages)


def test_a_suite_with_an_unknown_or_missing_key_is_refused(tmp_path):
    (tmp_path / "bad.py").write_text("name = 'x'\npretrain = dict()\ntasks = dict()\n")
    with pytest.raises(ConfigError, match=r"unknown keys \['tasks'\]; missing keys \['transfer'\]"):
        load_suite(tmp_path / "bad.py")


def test_a_missing_config_names_near_ones():
    with pytest.raises(ConfigError, match="emae_vit-base"):
        plan(Suite("x", {"EMAE": dict(config="pretrain/emae_vit-bas.py", data="")}, {}), Path("d"), Path("o"))


@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_shipped_suites_plan(name):
    stages = plan(load_suite(name), Path("data"), Path("out"))
    methods = {s.method for s in stages if s.kind == "transfer"}
    assert methods == {"EMAE", "MAE", "random init"}
    # k-NN, linear probe, Mask R-CNN and UperNet for each
    assert sum(s.kind == "transfer" for s in stages) == 4 * len(methods)


def test_progress_lines_name_stage_step_loss_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("emae_mm.suite.progress.time.monotonic", lambda: now[0])
    console = Console(file=io.StringIO(), width=120)
    progress = StageProgress(console, 2, 7, "pre-train MAE")
    for step in (10, 20, 30):
        progress(step, 90, 0.5)
        now[0] += 10.0
    progress.end("done")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "[2/7] pre-train MAE ..."
    # 10 steps took 10 s: 70 and 60 steps are left
    assert lines[2] == "[2/7] pre-train MAE  step 20/90  loss 0.5000  1:10 left"
    assert lines[3] == "[2/7] pre-train MAE  step 30/90  loss 0.5000  1:00 left"
    assert lines[4] == "[2/7] pre-train MAE: done (0:30)"


def test_clock():
    assert [clock(s) for s in (None, 0, 59.6, 3599, 3600)] == ["-", "0:00", "1:00", "59:59", "1:00:00"]
