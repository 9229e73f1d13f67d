"""A run killed with SIGKILL and resumed ends exactly as one that was never interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
KINDS = {
    "epochs": dict(by_epoch=True),
    "epochs, workers": dict(by_epoch=True, workers=2),
    "epochs, persistent workers": dict(by_epoch=True, workers=2, persistent=True),
    "steps": dict(by_epoch=False),
    "steps, persistent workers": dict(by_epoch=False, workers=2, persistent=True),
}
# before the first checkpoint, between two, while one is written, in the last validation (4 batches each)
KILLS = {True: ("step:2", "step:7", "write:2", "val:16", "full:6"), False: ("step:11", "write:1", "val:6")}


def _scenarios(folder: Path) -> list[dict]:
    from toy_run import write_config

    found = []
    for kind, options in KINDS.items():
        slug = kind.replace(", ", "-").replace(" ", "-")
        config = str(write_config(folder / f"{slug}.py", **options))
        found.append(dict(config=config, work_dir=str(folder / slug / "whole")))
        for kill in KILLS[options["by_epoch"]] if not options.get("workers") else ("step:7",):
            killed = str(folder / slug / kill.replace(":", "-"))
            found.append(dict(config=config, work_dir=killed, kill=kill))
            found.append(dict(config=config, work_dir=killed, resume=True))
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Work directories of all runs by kind and kill point ("whole" for none)."""
    folder = tmp_path_factory.mktemp("resume")
    sys.path.insert(0, str(HERE))
    scenarios = _scenarios(folder)
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    command = [sys.executable, str(HERE / "toy_run.py"), str(folder / "scenarios.json"), str(folder / "codes.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "stderr.txt").write_text(done.stderr)
    codes = json.loads((folder / "codes.json").read_text())
    for scenario, code in zip(scenarios, codes, strict=True):
        kill = scenario.get("kill", "")
        expected = 2 if kill.startswith("full") else -signal.SIGKILL if kill else 0
        assert code == expected, f"{scenario}: exit {code}\n{done.stderr[-3000:]}"
    return {(Path(s["work_dir"]).parent.name, Path(s["work_dir"]).name): Path(s["work_dir"]) for s in scenarios}


def _last(work_dir: Path) -> dict:
    path = work_dir / Path((work_dir / "last_checkpoint").read_text()).name
    return torch.load(path, weights_only=True)  # also: nothing in it needs code to be read


def test_resumed_runs_end_bit_identical(runs):
    for (kind, kill), work_dir in runs.items():
        whole, resumed = _last(runs[kind, "whole"]), _last(work_dir)
        assert whole["meta"]["iter"] == resumed["meta"]["iter"] == 16
        for name, tensor in whole["state_dict"].items():
            assert torch.equal(tensor, resumed["state_dict"][name]), (kind, kill, name)
        for index, moments in whole["optimizer"]["state"].items():
            for name, tensor in moments.items():
                assert torch.equal(tensor, resumed["optimizer"]["state"][index][name]), (kind, kill, index, name)
        assert torch.equal(whole["random_states"][0]["torch"], resumed["random_states"][0]["torch"]), (kind, kill)


def test_workers_do_not_change_the_result(runs):
    plain = _last(runs["epochs", "whole"])["state_dict"]
    for kind in ("epochs-workers", "epochs-persistent-workers"):
        for name, tensor in _last(runs[kind, "whole"])["state_dict"].items():
            assert torch.equal(tensor, plain[name]), (kind, name)


def test_random_states_are_complete(runs):
    states = _last(runs["epochs", "whole"])["random_states"]
    assert len(states) == 1 and {"python", "numpy", "torch"} <= set(states[0])


def test_augmentations_differ_between_epochs(runs):
    lines = (runs["epochs", "whole"] / "losses_0.txt").read_text().splitlines()
    assert len({line.split()[1] for line in lines}) == len(lines) == 16


def test_full_disk_is_one_clear_error_and_costs_nothing(runs):
    """The second checkpoint did not fit; that the run went on from the first is the first test's business."""
    work_dir = runs["epochs", "full-6"]
    message = (work_dir.parents[1] / "stderr.txt").read_text()
    assert f"no space left to write {work_dir / 'epoch_2.pth'}" in message
    assert "--resume" in message
    assert not list(work_dir.glob(".*.tmp"))
