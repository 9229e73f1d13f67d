"""Whether a run is as long as its schedule supposes."""

from mmengine.config import Config

from emae_mm.errors import ConfigError


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
