"""Iteration-based schedules under gradient accumulation: what counts optimiser steps counts passes instead."""

from mmengine.config import Config

from emae_mm.errors import ConfigError

MARK = "passes_per_step"
"""The config key that says what a config's schedule has been stretched by: its copy may be run again."""
LENGTHS = ("begin", "end", "T_max", "total_iters", "milestones", "step_size")
"""What schedulers count in iterations."""
UNKNOWN = ("ExponentialLR", "ExponentialParamScheduler", "CosineRestartLR", "OneCycleLR")
"""Schedulers whose course is not a function of the share of the way."""


def check_same_passes(cfg: Config, passes: int) -> None:
    """Raise ConfigError where a checkpoint that took ``passes`` passes a step is resumed with another number.

    Its iterations, which are passes, would be another share of the way.
    """
    now = cfg.get(MARK, 1)
    if now != passes:
        raise ConfigError(
            f"the checkpoint was written with {passes} passes for each optimiser step, this run would take {now}",
            "resume with the same number of processes and train_dataloader.batch_size",
        )


def _times(value, factor: int):
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(_times(item, factor) for item in value)
    return value * factor if isinstance(value, int) else value


def _stretch(node: dict, keys: tuple[str, ...], factor: int) -> None:
    for key in keys:
        if key in node:
            node[key] = _times(node[key], factor)


def accumulate_iterations(cfg: Config, passes: int) -> None:
    """Make an iteration-based training take ``passes`` passes for each optimiser step it would take, in place.

    mmengine's iterations are passes: loop, schedule, validation and checkpoints are stretched, so that the optimiser
    sees as many steps at the same learning rates. Batch norm sees the images of one pass.

    Raises:
        ConfigError: a scheduler's course cannot be stretched.
    """
    factor, rest = divmod(passes, cfg.get(MARK, 1))
    if rest:
        raise ConfigError(
            f"this config's schedule has been stretched for {cfg[MARK]} passes a step, and {passes} are needed now",
            "start from the original config",
        )
    cfg.optim_wrapper.accumulative_counts, cfg[MARK] = passes, passes
    _stretch(cfg.train_cfg, ("max_iters", "val_interval", "val_begin"), factor)
    schedule = cfg.get("param_scheduler") or []
    for part in [schedule] if isinstance(schedule, dict) else schedule:
        if part.get("by_epoch", True):
            continue
        if str(part["type"]).rpartition(".")[2] in UNKNOWN:
            raise ConfigError(
                f"param_scheduler {part['type']} cannot be stretched for {passes} passes a step",
                "raise train_dataloader.batch_size to each process's share of global_batch_size",
            )
        _stretch(part, LENGTHS, factor)
    checkpoints = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    if not checkpoints.get("by_epoch", True):
        _stretch(checkpoints, ("interval", "save_begin"), factor)
