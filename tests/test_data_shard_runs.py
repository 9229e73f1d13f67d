"""Pre-training from tar shards: resumed in mid-epoch, with and without workers, on one and two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from tar_shards import write_shards

# the first test waits for seven runs: half a minute on two free cores, minutes on busy ones
pytestmark = pytest.mark.timeout(600)
HERE = Path(__file__).parent
COUNTS = (9, 1, 0, 13, 4)  # 27 images: 3 steps of 8 and 3 images of the next epoch
BROKEN = 11
STEPS, STEPS_OF_TWO = 8, 4
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['emae_mm.registry', 'toy_run', 'tar_shards'], allow_failed_imports=False)
custom_hooks = [dict(type='emae_mm.SeenHook'), dict(type='emae_mm.KillHook')]
global_batch_size = 8
train_dataloader = dict(
    batch_size=8, num_workers={workers}, persistent_workers={persistent},
    sampler=dict(_delete_=True, type='emae_mm.{sampler}', shards_at_once=2),
    dataset=dict(_delete_=True, type='emae_mm.TarShards', shards='s-{{0..4}}.tar', data_root={data!r},
                 pipeline=_base_.small_pipeline))
train_cfg = dict(_delete_=True, {loop})
param_scheduler = [dict(type='CosineAnnealingLR', T_max={steps}, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict({every}, max_keep_ckpts=1))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[])
"""
BY_STEP = dict(
    sampler="InfiniteShardSampler",
    loop=f"type='IterBasedTrainLoop', max_iters={STEPS}",
    every="by_epoch=False, interval=4",
)
BY_EPOCH = dict(sampler="ShardSampler", loop="type='EpochBasedTrainLoop', max_epochs=3", every="interval=1")


def _environment(repo: Path) -> dict:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(repo), str(HERE)]),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repo) -> Path:
    """A folder with one work directory a run."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "data", COUNTS, broken=[BROKEN])

    def config(name: str, workers: int = 0, **kind) -> str:
        base = str(repo / "configs/pretrain/demo/emae_vit-demo_demo.py")
        text = CONFIG.format(
            base=base, data=str(folder / "data"), workers=workers, persistent=workers > 0, steps=STEPS, **kind
        )
        (folder / f"{name}.py").write_text(text)
        return str(folder / f"{name}.py")

    plain, workers, epochs = config("steps", **BY_STEP), config("workers", 2, **BY_STEP), config("epochs", **BY_EPOCH)
    scenarios = [
        dict(config=plain, work_dir=str(folder / "whole")),
        dict(config=workers, work_dir=str(folder / "resumed"), kill="step:5"),
        dict(config=workers, work_dir=str(folder / "resumed"), resume=True),
        dict(config=epochs, work_dir=str(folder / "epochs")),
        dict(config=epochs, work_dir=str(folder / "epochs_resumed"), kill="step:5"),
        dict(config=epochs, work_dir=str(folder / "epochs_resumed"), resume=True),
    ]
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    command = [sys.executable, str(HERE / "toy_run.py"), str(folder / "scenarios.json"), str(folder / "codes.json")]
    options = dict(env=_environment(repo), cwd=folder, capture_output=True, text=True, timeout=280)
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = [-signal.SIGKILL if "kill" in scenario else 0 for scenario in scenarios]
    assert json.loads((folder / "codes.json").read_text()) == expected, done.stderr[-4000:]
    two = [str(repo / "tools/dist_train.sh"), plain, "2", "--work-dir", str(folder / "two")]
    two += ["--cfg-options", f"train_cfg.max_iters={STEPS_OF_TWO}"]
    done = subprocess.run(two, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def _seen(work_dir: Path, rank: int = 0) -> dict[int, list[str]]:
    """The images of each step; of a step that was repeated after resuming, those of the repetition."""
    lines = [line.split() for line in (work_dir / f"seen_{rank}.txt").read_text().splitlines()]
    return {int(step): names for step, *names in lines}


def _last(work_dir: Path) -> dict:
    return torch.load(work_dir / Path((work_dir / "last_checkpoint").read_text()).name, weights_only=True)


def test_first_epoch_shows_every_whole_image_once(runs):
    seen = _seen(runs / "whole")
    assert sorted(seen) == list(range(STEPS)) and all(len(names) == 8 for names in seen.values())
    first = [name for names in seen.values() for name in names][: sum(COUNTS)]
    times = Counter(first)
    assert f"image{BROKEN:04d}.jpg" not in times, "the cut image is skipped"
    # another sample stands in for it, which is then there twice
    assert len(times) == sum(COUNTS) - 1 and sorted(times.values())[-2:] == [1, 2]


def test_resumed_in_the_middle_of_an_epoch_sees_exactly_the_remaining_samples(runs):
    lines = (runs / "resumed" / "seen_0.txt").read_text().splitlines()
    killed_after, saved = 5, 4
    steps = [int(line.split()[0]) for line in lines]
    assert steps == [*range(killed_after), *range(saved, STEPS)], "it went on from the last checkpoint"
    whole = (runs / "whole" / "seen_0.txt").read_text().splitlines()
    assert lines == whole[:killed_after] + whole[saved:]


@pytest.mark.parametrize(("whole", "resumed"), [("whole", "resumed"), ("epochs", "epochs_resumed")])
def test_resumed_runs_end_bit_identical(runs, whole, resumed):
    """Those by step had two workers, the whole one none: neither workers nor interruptions show in the result."""
    one, other = _last(runs / whole), _last(runs / resumed)
    assert one["meta"]["iter"] == other["meta"]["iter"]
    for name, tensor in one["state_dict"].items():
        assert torch.equal(tensor, other["state_dict"][name]), name
    for index, moments in one["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, other["optimizer"]["state"][index][name]), (index, name)


def test_epochs_differ_in_order_and_hold_the_same_images(runs):
    seen = _seen(runs / "epochs")
    assert len(seen) == 9, "three whole batches of each epoch: the demonstration drops the last"
    first, second = ([name for step in steps for name in seen[step]] for steps in (range(3), range(3, 6)))
    assert first != second and len(set(first) | set(second)) == sum(COUNTS) - 1


def test_two_processes_share_the_samples_of_one(runs):
    one, two = _seen(runs / "whole"), [_seen(runs / "two", rank) for rank in (0, 1)]
    for step in range(STEPS_OF_TWO):
        shares = [seen[step] for seen in two]
        assert [len(share) for share in shares] == [4, 4]
        assert sorted(shares[0] + shares[1]) == sorted(one[step])
    losses = [np.loadtxt(runs / name / "losses_0.txt")[:STEPS_OF_TWO, 1] for name in ("whole", "two")]
    # gradients are summed in another order: fp32, four AdamW steps
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
