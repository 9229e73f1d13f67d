"""Runs of a tiny EMAE for the tests of scale, each on one or several forked CPU processes.

``python scale_run.py scenarios.json codes.json`` pays for the imports once. A scenario is a dict of ``processes`` and
what ``prepare_config`` takes; the largest exit code of each one's processes is written, in order.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from emae_mm.errors import UserError
from emae_mm.registry import DATASETS, HOOKS

IMAGES, SIZE = 32, 32

# eps is large: with 1e-8 AdamW turns rounding errors of gradients that are zero into whole steps
CONFIG = """
custom_imports = dict(imports=['emae_mm.registry', 'scale_run'], allow_failed_imports=False)
default_scope = 'mmpretrain'
record = dict(task='pretrain', method='EMAE', data='toy', epochs=2)
model = dict(
    type='emae_mm.EMAE', num_parts=4, data_preprocessor=dict(type='SelfSupDataPreprocessor'),
    backbone=dict(arch=dict(embed_dim=32, depth=2, num_heads=2), img_size=32, patch_size=8),
    decoder=dict(decoder_dim=16, depth=3, num_heads=2))
global_batch_size = 16
train_dataloader = dict(
    batch_size=16, num_workers=0, collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='emae_mm.ScaleImages'))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
optim_wrapper = dict(
    type='emae_mm.AutocastOptimWrapper', dtype='float32', clip_grad=dict(max_norm=0.5),
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.95), eps=1e-4, weight_decay=0.05),
    constructor='emae_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9, no_decay_1d=True))
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='emae_mm.PruningCheckpointHook', interval=1, max_keep_ckpts=-1),
    finite=dict(type='emae_mm.NonFiniteLossHook'), export=dict(type='emae_mm.ExportEncoderHook'),
    record=dict(type='emae_mm.RecordHook'))
custom_hooks = [dict(type='emae_mm.LossFileHook')]
randomness = dict(seed=3)
visualizer = dict(type='Visualizer', vis_backends=[])
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
"""


@DATASETS.register_module()
class ScaleImages(Dataset):
    """Random images, smooth enough to learn something of."""

    def __init__(self):
        self.metainfo = {}
        coarse = torch.randn(IMAGES, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        self.data = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear")

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=[self.data[index]], data_samples=DataSample())


@HOOKS.register_module()
class LossFileHook(Hook):
    """Appends iteration, loss and learning rate to ``losses_<rank>.txt``."""

    priority = "LOWEST"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        rate = runner.optim_wrapper.optimizer.param_groups[-1]["lr"]
        with open(Path(runner.work_dir) / f"losses_{runner.rank}.txt", "a") as file:
            file.write(f"{runner.iter} {outputs['loss'].item()!r} {rate!r}\n")


def train(config: str, work_dir: str, launcher: str = "none", **options) -> None:
    """One process of a run."""
    from emae_mm.engine import launch

    torch.set_num_threads(1)
    launch.run(launch.prepare_config(config, work_dir=work_dir, launcher=launcher, **options), quiet=True)


def _fork(scenario: dict, rank: int, processes: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        if processes > 1:
            scenario["launcher"] = "pytorch"
            addresses = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), **addresses)
        train(**scenario)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main() -> None:
    """Run all scenarios, one after the other."""
    import mmengine._strategy.base as mmengine_strategy
    import mmengine.runner.runner as mmengine_runner

    from emae_mm.engine import launch, sharded_runner  # noqa: F401  paid once
    from emae_mm.models import algorithms  # noqa: F401

    mmengine_runner.collect_env = mmengine_strategy.collect_env = dict  # a second a run for a log nobody reads here
    codes = []
    for scenario in json.loads(Path(sys.argv[1]).read_text()):
        processes = scenario.pop("processes", 1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = [_fork(scenario, rank, processes, port) for rank in range(processes)]
        codes.append(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
    Path(sys.argv[2]).write_text(json.dumps(codes))


if __name__ == "__main__":
    sys.modules["scale_run"] = sys.modules["__main__"]  # the configs import it by this name
    main()
