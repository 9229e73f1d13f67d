"""A work directory belongs to one configuration."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process

from emae_mm.engine.follow_data import read_classes
from emae_mm.engine.hooks import checkpoints_in
from emae_mm.engine.record_hook import CONFIG_FILE
from emae_mm.errors import ConfigError, UserError
from emae_mm.fileio import file_sha256, write_text
from emae_mm.leaderboard.records import RECORD_NAME

# What may change between two calls of the same run: where it is, how it is launched, shown and continued.
VOLATILE = {
    "work_dir", "launcher", "resume", "load_from", "log_level", "log_processor", "visualizer", "vis_backends",
    "tracker", "knn_probe", "reconstruction_panel", "pictures",
    "env_cfg", "custom_imports", "model_wrapper_cfg", "strategy", "activation_checkpointing", "compile", "runner_type",
    "chosen_classes",
}  # fmt: skip
FREE_MB = 200
"""Less free disk space than this is an error before a run starts."""


def identity(cfg: Config) -> str:
    """What defines the run, as JSON: the config without what may change, the encoder named by its content."""
    content = {key: value for key, value in cfg.to_dict().items() if key not in VOLATILE}
    source = content.get("pretrained")
    if source and Path(source).is_file():
        content["pretrained"] = {"sha256": file_sha256(source)}
        content["model"]["backbone"].pop("pretrained", None)
    return json.dumps(content, indent=1, sort_keys=True, default=str) + "\n"


def latest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run, or None."""
    return next(iter(reversed(checkpoints_in(work_dir))), None)


def is_finished(cfg: Config) -> bool:
    """Whether this very run has left its record."""
    work_dir = Path(cfg.work_dir)
    if not (work_dir / RECORD_NAME).is_file() or not (work_dir / CONFIG_FILE).is_file():
        return False
    cfg = cfg.copy()
    read_classes(cfg)
    return (work_dir / CONFIG_FILE).read_text() == identity(cfg)


def claim(cfg: Config) -> None:
    """Make the work directory this run's own.

    Raises:
        ConfigError: it belongs to another configuration (the first differing keys are named), or holds this run's
            results and resuming was not asked for.
        UserError: it cannot be written to, or there is no disk space.
    """
    work_dir, text = Path(cfg.work_dir), identity(cfg)
    other = "choose another --work-dir, or change the permissions"
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"work directory {work_dir} cannot be made ({error.strerror})", other) from error
    if not os.access(work_dir, os.W_OK | os.X_OK):
        raise UserError(f"work directory {work_dir} cannot be written to", other)
    free = shutil.disk_usage(work_dir).free >> 20
    if free < FREE_MB:
        raise UserError(f"only {free} MiB are free where {work_dir} is", "free disk space or choose another --work-dir")
    known = work_dir / CONFIG_FILE
    started = checkpoints_in(work_dir) or (work_dir / RECORD_NAME).is_file()
    if started and known.is_file() and known.read_text() != text:
        keys = _differences(json.loads(known.read_text()), json.loads(text))
        raise ConfigError(
            f"work directory {work_dir} belongs to another configuration; it differs in {', '.join(keys[:5])}"
            + (f" and {len(keys) - 5} more" if len(keys) > 5 else ""),
            "choose another --work-dir, or delete this one if its results are not needed",
        )
    if cfg.get("train_cfg") and started and not (known.is_file() and cfg.get("resume")):
        raise ConfigError(
            f"work directory {work_dir} already holds checkpoints",
            "add --resume to go on with that run, or choose another --work-dir",
        )
    barrier()  # every process has looked before the main one writes
    if is_main_process() and not (started and known.is_file()):
        write_text(known, text)  # a run that stopped before its first checkpoint leaves nothing to protect


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two configs differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted(set(old) | set(new)):
            found += _differences(old.get(key), new.get(key), f"{prefix}{key}.")
        return found
    return [] if old == new else [f"{prefix.rstrip('.')} ({str(old)[:60]} there, {str(new)[:60]} here)"]
