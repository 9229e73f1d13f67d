"""Under FSDP the logged gradient norm is that of the whole gradient, not of a process's share.

Three processes import the whole stack, about 15 s each on a free core.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPO = Path(__file__).resolve().parents[1]
CONFIG = """
_base_ = [{base!r}]
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
global_batch_size = 4
train_cfg = dict(max_epochs=1)
train_dataloader = dict(batch_size=4)
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
reconstruction_panel = dict(interval=1, images=2)
"""


def gradient_norms(work_dir: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = work_dir.glob("*/vis_data/events*")
    reader = EventAccumulator(str(events))
    reader.Reload()
    return [event.value for event in reader.Scalars("grad_norm")]


def one_process(images: str, config: str, work_dir: str) -> None:
    import torch

    from emae_mm.engine import launch

    torch.set_num_threads(1)
    sharded = "RANK" in os.environ
    launcher = "pytorch" if sharded else "none"
    cfg = launch.prepare_config(config, work_dir=work_dir, data_root=images, launcher=launcher, fsdp=sharded)
    launch.run(cfg, quiet=True)


def test_the_gradient_norm_of_shares_is_that_of_the_whole(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images/train").mkdir(parents=True)
    for index in range(16):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((72, 72)).save(tmp_path / f"images/train/{index}.png")
    config = tmp_path / "emae.py"
    config.write_text(CONFIG.format(base=str(REPO / "configs/pretrain/demo/emae_vit-demo_demo.py")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO)}
    command = [sys.executable, __file__, str(tmp_path / "images"), str(config)]
    alone = subprocess.Popen([*command, str(tmp_path / "one")], env=environment)
    group = dict(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    pair = [
        subprocess.Popen(
            [*command, str(tmp_path / "two")], env=environment | group | dict(RANK=str(rank), LOCAL_RANK=str(rank))
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=280) for process in (alone, *pair)] == [0, 0, 0]
    # sums in another order, four AdamW steps in float32
    assert gradient_norms(tmp_path / "two") == pytest.approx(gradient_norms(tmp_path / "one"), rel=1e-3)
    assert (tmp_path / "one/reconstructions/epoch_1.png").is_file()
    (log,) = (tmp_path / "two").glob("*/*.log")
    assert "no reconstruction panel is drawn under FSDP" in log.read_text()


if __name__ == "__main__":
    one_process(*sys.argv[1:])
