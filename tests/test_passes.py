"""Iteration-based training with fewer processes than its protocol: the same batches, rates and lengths."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from toy_run import write_config

from emae_mm.engine import launch
from emae_mm.engine.distributed import share_batch
from emae_mm.engine.passes import accumulate_iterations
from emae_mm.errors import ConfigError

SCHEDULES = {
    "detection/mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py": "cosine",
    "detection/vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco.py": "steps",
    "segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512.py": "polynomial",
}


def rates(cfg: Config, iterations: list[int]) -> list[float]:
    """The learning rate at some iterations."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    parts = [PARAM_SCHEDULERS.build(dict(part), default_args=dict(optimizer=optimizer)) for part in cfg.param_scheduler]
    found = []
    for iteration in range(max(iterations) + 1):
        if iteration in iterations:
            found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for part in parts:
            part.step()
    return found


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_optimiser_sees_the_protocols_rates(repo, name):
    cfg = Config.fromfile(repo / "configs" / name)
    lengths = cfg.train_cfg.max_iters, cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval
    for part in cfg.param_scheduler:  # short enough to be stepped through: a warm-up of 20 steps, then a thousandth
        warming = part["type"] == "LinearLR"
        part.update({"begin": min(part.get("begin", 0), 20)})
        part.update({key: 20 if warming else part[key] // 1000 for key in ("end", "T_max") if key in part})
        if "milestones" in part:
            part["milestones"] = [20 + milestone // 2000 for milestone in part["milestones"]]
    stretched = copy.deepcopy(cfg)
    accumulate_iterations(stretched, 8)
    found = stretched.train_cfg.max_iters, stretched.train_cfg.val_interval, stretched.default_hooks.checkpoint.interval
    assert found == tuple(8 * length for length in lengths)
    assert stretched.optim_wrapper.accumulative_counts == 8
    steps = [0, 5, 19, 25, 60, 120]
    before = rates(cfg, steps)
    after = rates(stretched, [8 * step for step in steps])
    # mmengine's warm-up and polynomial reach their end one iteration early, which is less than a step now
    assert after == pytest.approx(before, rel=0.06)
    assert len({round(rate, 6) for rate in before}) > 2


def test_a_config_that_was_stretched_is_not_stretched_again(tmp_path):
    cfg = launch.prepare_config(write_config(tmp_path / "toy.py", noisy=False, validate=False, by_epoch=False))
    iterations = cfg.train_cfg.max_iters
    cfg.global_batch_size = 16
    share_batch(cfg)
    assert cfg.train_cfg.max_iters == 4 * iterations and cfg.train_dataloader.batch_size == 4
    share_batch(cfg)
    assert cfg.train_cfg.max_iters == 4 * iterations
    with pytest.raises(ConfigError, match="stretched for 4 passes a step, and 2 are needed"):
        share_batch(cfg, processes=2)
    fresh = launch.prepare_config(write_config(tmp_path / "toy2.py", noisy=False, validate=False, by_epoch=False))
    fresh.param_scheduler[0].type = "ExponentialLR"
    with pytest.raises(ConfigError, match="ExponentialLR cannot be stretched"):
        accumulate_iterations(fresh, 2)


def test_accumulated_steps_equal_large_batches(tmp_path):
    """Weights after training in batches of 8 and in passes of 4 that are accumulated by two."""
    weights = {}
    for held in (8, 4):
        config = write_config(tmp_path / f"toy{held}.py", noisy=False, validate=False, by_epoch=False)
        cfg = launch.prepare_config(
            config,
            work_dir=tmp_path / str(held),
            cfg_options={"global_batch_size": 8, "train_dataloader.batch_size": held, "param_scheduler": []},
        )
        launch.run(cfg, quiet=True)
        last = Path((tmp_path / str(held) / "last_checkpoint").read_text().strip())
        weights[held] = torch.load(last, weights_only=True)["state_dict"]
    for name, tensor in weights[8].items():
        # float32 sums in another order, through a few AdamW steps of 0.01
        torch.testing.assert_close(weights[4][name], tensor, rtol=1e-3, atol=1e-4)


def test_resuming_with_other_passes_is_refused(tmp_path):
    config = write_config(tmp_path / "toy.py", noisy=False, validate=False, by_epoch=False)
    batches = {"global_batch_size": 8, "train_dataloader.batch_size": 4}
    first = launch.prepare_config(config, work_dir=tmp_path / "work", cfg_options=batches)
    launch.run(first, quiet=True)
    checkpoint = next((tmp_path / "work").glob("iter_*.pth"))
    batches["train_dataloader.batch_size"] = 2
    again = launch.prepare_config(config, work_dir=tmp_path / "new", cfg_options=batches, resume=str(checkpoint))
    with pytest.raises(ConfigError, match="written with 2 passes for each optimiser step, this run would take 4"):
        launch.run(again, quiet=True)
