"""tools/dist_train.sh: two CPU processes are one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['emae_mm.registry', 'toy_run'], allow_failed_imports=False)
custom_hooks = [dict(type='emae_mm.KillHook')]
global_batch_size = {batch}
train_cfg = dict(max_epochs=2)
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[])
"""
# gradients are summed in another order: fp32, six AdamW steps; 1e-7 was measured
LOSS_TOLERANCE = 1e-5


def _write_images(root: Path) -> None:
    generator = np.random.default_rng(0)
    for index in range(24):
        folder = root / "train" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((72, 72)).save(folder / f"{index}.png")


def _launch(folder: Path, repo: Path, processes: int, batch: int = 8) -> subprocess.CompletedProcess:
    """Train the demonstration's EMAE on 24 images for 2 epochs by the documented commands."""
    config = folder / f"emae_{processes}_{batch}.py"
    config.write_text(CONFIG.format(base=str(repo / "configs/pretrain/demo/emae_vit-demo_demo.py"), batch=batch))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(repo), str(HERE)]),
    }
    alone = [sys.executable, str(repo / "tools/train.py"), str(config)]
    command = alone if processes == 1 else [str(repo / "tools/dist_train.sh"), str(config), str(processes)]
    options = ["--data-root", str(folder / "data"), "--work-dir", str(folder / f"work_{processes}_{batch}")]
    return subprocess.run(command + options, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)


def _losses(work_dir: Path, rank: int) -> np.ndarray:
    return np.array([float(line.split()[1]) for line in (work_dir / f"losses_{rank}.txt").read_text().splitlines()])


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repo) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    _write_images(folder / "data")
    for processes in (1, 2):
        done = _launch(folder, repo, processes)
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_both_processes_end_with_the_same_parameters(runs):
    first, second = ((runs / "work_2_8" / f"weights_{rank}.txt").read_text() for rank in (0, 1))
    assert first == second


def test_loss_curve_is_that_of_one_process(runs):
    one = _losses(runs / "work_1_8", 0)
    assert len(one) == 6
    for rank in (0, 1):
        np.testing.assert_allclose(_losses(runs / "work_2_8", rank), one, rtol=LOSS_TOLERANCE)


def test_a_batch_that_does_not_divide_is_one_message(runs, repo):
    done = _launch(runs, repo, processes=2, batch=7)
    assert done.returncode != 0
    assert done.stderr.count("error: global_batch_size=7 does not divide among 2 processes") == 1
