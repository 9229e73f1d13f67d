"""Runs of a toy model for the tests of the engine: seconds each, random in every place a real one is.

As a script it forks one child a scenario, so that the imports are paid once: ``python toy_run.py scenarios.json``.
"""

import hashlib
import json
import os
import random
import resource
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from emae_mm.errors import UserError
from emae_mm.registry import DATASETS, HOOKS, MODELS

STEPS_AN_EPOCH, EPOCHS = 4, 4
FULL_DISK = 8192

CONFIG = """
custom_imports = dict(imports=['emae_mm.registry', 'toy_run'], allow_failed_imports=False)
default_scope = 'mmengine'
record = dict(task='pretrain', method='toy', arch='toy', data='toy', epochs={epochs})
model = dict(type='emae_mm.ToyModel', noisy={noisy})
train_dataloader = dict(
    batch_size=4, num_workers={workers}, persistent_workers={persistent},
    sampler=dict(type='{sampler}', shuffle=True), dataset=dict(type='emae_mm.ToyData', noisy={noisy}))
{validation}train_cfg = {loop}
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01))
param_scheduler = [dict(type='CosineAnnealingLR', T_max={steps}, by_epoch=False)]
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='emae_mm.PruningCheckpointHook', {every}, max_keep_ckpts=1))
custom_hooks = [dict(type='emae_mm.KillHook'), dict(type='emae_mm.ExportEncoderHook'), dict(type='emae_mm.RecordHook')]
randomness = dict(seed=3)
visualizer = dict(type='Visualizer', vis_backends=[])
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
"""

VALIDATION = """
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='emae_mm.ToyData', noisy=True))
val_evaluator = []
val_cfg = dict(type='ValLoop')
"""


@DATASETS.register_module()
class ToyData(Dataset):
    """16 vectors; with ``noisy`` an augmentation draws from all three generators."""

    def __init__(self, noisy: bool):
        self.metainfo = dict(classes=("a", "b"))
        self.noisy = noisy
        self.data = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        noise = random.random() + np.random.rand() + torch.rand(1).item() if self.noisy else 0.0
        return dict(inputs=self.data[index] + noise)


@MODELS.register_module()
class ToyModel(BaseModel):
    """A small autoencoder with dropout."""

    def __init__(self, noisy: bool, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.backbone = nn.Linear(6, 6)
        self.backbone.embed_dim, self.backbone.depth, self.backbone.num_heads, self.backbone.patch_size = 6, 1, 1, 1
        self.head = nn.Sequential(nn.Dropout(0.3 if noisy else 0.0), nn.Linear(6, 6))

    def encoder_for_export(self) -> nn.Module:
        return self.backbone

    def forward(self, inputs, mode: str = "tensor"):
        inputs = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        error = (self.head(self.backbone(inputs).tanh()) - inputs).square().mean()
        if mode == "loss":
            return dict(loss=error)
        torch.rand(3)  # a validation that draws must not show in the training that follows
        return [BaseDataElement()]


@HOOKS.register_module()
class KillHook(Hook):
    """SIGKILLs its own process at ``KILL_AT``; records losses and, at the end, a hash of the weights of each process.

    ``KILL_AT`` is ``step:N``, ``val:N`` (validation batch), ``write:N`` (in the N-th checkpoint's write), ``full:N``:
    no kill, but from step N on files cannot grow beyond 8 KiB, less than a checkpoint.
    """

    priority = "VERY_LOW"

    def __init__(self):
        kind, _, number = os.environ.get("KILL_AT", "never:0").partition(":")
        self.kind, self.number, self.seen = kind, int(number), 0
        if kind == "write":
            self._wrap_save()

    def _die(self, kind: str) -> None:
        if kind == self.kind:
            self.seen += 1
            if self.seen == self.number and kind == "full":
                resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_DISK, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            elif self.seen == self.number:
                os.kill(os.getpid(), signal.SIGKILL)

    def _wrap_save(self) -> None:
        save = torch.save

        def partly(content, file, *args, **kwargs):
            save(content, file, *args, **kwargs)
            self._die("write")  # serialised, but not in place

        torch.save = partly

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        with open(Path(runner.work_dir) / f"losses_{runner.rank}.txt", "a") as file:
            file.write(f"{runner.iter} {outputs['loss'].item()!r}\n")
        self._die("step")
        self._die("full")

    def after_train(self, runner) -> None:
        digest = hashlib.sha256()
        for value in runner.model.state_dict().values():
            digest.update(value.numpy().tobytes())
        (Path(runner.work_dir) / f"weights_{runner.rank}.txt").write_text(digest.hexdigest())

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._die("val")


def write_config(path: Path, *, by_epoch=True, workers=0, persistent=False, noisy=True, validate=True) -> Path:
    """A config file of one toy run."""
    steps = STEPS_AN_EPOCH * EPOCHS
    loop = (
        f"dict(type='EpochBasedTrainLoop', max_epochs={EPOCHS}, val_interval=1)"
        if by_epoch
        else f"dict(type='IterBasedTrainLoop', max_iters={steps}, val_interval=3)"
    )
    path.write_text(
        CONFIG.format(
            epochs=EPOCHS, steps=steps, workers=workers, persistent=persistent, noisy=noisy, loop=loop,
            sampler="DefaultSampler" if by_epoch else "InfiniteSampler",
            validation=VALIDATION if validate else "",
            every="interval=1" if by_epoch else "by_epoch=False, interval=3",
        )
    )  # fmt: skip
    return path


def run_scenario(config: str, work_dir: str, kill: str = "", resume: bool = False, **options) -> None:
    """Train in this process; leaves checkpoints in ``work_dir``."""
    from emae_mm.engine import launch

    torch.set_num_threads(1)
    os.environ["KILL_AT"] = kill or "never:0"
    cfg = launch.prepare_config(config, work_dir=work_dir, resume="auto" if resume else False, **options)
    launch.run(cfg, quiet=True)


def main() -> None:
    """Fork a child for every scenario of a JSON list, one after the other; writes their exit codes."""
    import mmengine.runner.runner as mmengine_runner

    from emae_mm.engine import launch  # noqa: F401  paid once

    mmengine_runner.collect_env = dict  # a second a run for a log nobody reads here
    codes = []
    for scenario in json.loads(Path(sys.argv[1]).read_text()):
        child = os.fork()
        if not child:
            try:
                run_scenario(**scenario)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                os._exit(2)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    Path(sys.argv[2]).write_text(json.dumps(codes))


if __name__ == "__main__":
    sys.modules["toy_run"] = sys.modules["__main__"]  # the configs import it by this name
    main()
