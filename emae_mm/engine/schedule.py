"""Whether a run is as long as its schedule supposes, and the learning rate that goes with its batch."""

from mmengine.config import Config

from emae_mm.engine.distributed import world_size
from emae_mm.errors import ConfigError


def scale_learning_rate(cfg: Config) -> str:
    """Where ``auto_scale_lr.enable`` is set, make the learning rate proportional to the batch of an optimiser step.

    In place of mmengine's, which does not count accumulated passes. To be called after
    :func:`~emae_mm.engine.distributed.share_batch`.

    Returns:
        what was done, for the log; empty if nothing.

    Raises:
        ConfigError: ``auto_scale_lr.base_batch_size`` or the learning rate is missing.
    """
    scaling = cfg.get("auto_scale_lr") or {}
    if not scaling.get("enable") or not cfg.get("train_dataloader"):
        return ""
    base, optimizer = scaling.get("base_batch_size"), cfg.optim_wrapper.get("optimizer", {})
    if not base or "lr" not in optimizer:
        raise ConfigError(
            "the learning rate cannot be scaled: the config has no "
            + ("optim_wrapper.optimizer.lr" if base else "auto_scale_lr.base_batch_size"),
            "set it, the batch that the config's learning rate is meant for, or leave --auto-scale-lr out",
        )
    processes = world_size() if cfg.launcher != "none" else 1
    batch = cfg.train_dataloader.batch_size * processes * cfg.optim_wrapper.get("accumulative_counts", 1)
    before, optimizer.lr = optimizer.lr, optimizer.lr * batch / base
    scaling.enable = False
    return f"learning rate {before:.6g} for a batch of {base} is {optimizer.lr:.6g} for one of {batch}"


def fuse_optimizer(cfg: Config) -> None:
    """Let AdamW step in one pass over the parameters, in place, unless the config chooses how it steps.

    The same values but for rounding, in a fifth of the time on a CPU.
    """
    optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer") or {}
    chosen = {"fused", "foreach", "capturable", "differentiable"} & set(optimizer)
    if str(optimizer.get("type")).rpartition(".")[2] == "AdamW" and not chosen:
        optimizer.fused = True


def check_schedule(cfg: Config) -> None:
    """Every part of the learning-rate schedule must end after it begins.

    A part without an ``end`` ends with the training. Parts in other units than the training's (steps within a training
    that is counted in epochs) are not looked at, since the length of an epoch is not known yet.

    Raises:
        ConfigError: the training ends before a part begins, as when it is no longer than its warm-up; names both.
    """
    loop = cfg.get("train_cfg") or {}
    unit, length = ("epochs", loop["max_epochs"]) if "max_epochs" in loop else ("iters", loop.get("max_iters"))
    schedule = cfg.get("param_scheduler") or []
    for part in [schedule] if isinstance(schedule, dict) else schedule:
        same_unit = part.get("by_epoch", True) == (unit == "epochs")
        begin = part.get("begin", 0)
        if length is not None and same_unit and part.get("end", length) <= begin:
            raise ConfigError(
                f"train_cfg.max_{unit}={length} is not larger than the {begin} {unit} of warm-up after which "
                f"{part['type']} in param_scheduler begins",
                f"train for more than {begin} {unit}, or shorten the warm-up in param_scheduler (its 'end', and the "
                "'begin' of what follows)",
            )
