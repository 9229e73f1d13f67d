"""Hooks that keep checkpoints and export the encoder."""

import re
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook

from emae_mm.checkpoints import export_encoder
from emae_mm.engine.fsdp import whole_state
from emae_mm.engine.layer_decay import unwrap
from emae_mm.fileio import write_text
from emae_mm.paths import ENCODER_FILE
from emae_mm.registry import HOOKS

_STEP = re.compile(r"(?:epoch|iter)_(\d+)\.pth")


def checkpoints_in(work_dir: str | Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    found = [(int(match[1]), path) for path in Path(work_dir).glob("*.pth") if (match := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


@HOOKS.register_module()
class PruningCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook that removes old checkpoints only after the new one is in place.

    Args:
        **kwargs: see mmengine's CheckpointHook; ``max_keep_ckpts`` is the number of checkpoints that stay.
    """

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        keep, self.max_keep_ckpts = self.max_keep_ckpts, -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = keep
        if is_main_process():
            write_text(Path(runner.work_dir) / "last_checkpoint", str(self.last_ckpt))
            if keep > 0:
                for old in checkpoints_in(runner.work_dir)[:-keep]:
                    old.unlink()


@HOOKS.register_module()
class ExportEncoderHook(Hook):
    """Writes ``encoder.pth`` after pre-training: timm-named tensors, and the config's ``record`` as ``meta``."""

    priority = "LOW"

    def after_train(self, runner) -> None:
        tensors = whole_state(runner.model, unwrap(runner.model).encoder_for_export())
        if is_main_process():
            meta = {key: value for key, value in runner.cfg.get("record", {}).items() if key != "task"}
            export_encoder(tensors, Path(runner.work_dir) / ENCODER_FILE, meta)
