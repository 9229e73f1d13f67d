"""From a config to what its training costs."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from emae_mm.cost.machine import Machine
from emae_mm.cost.measure import (
    FlopsPerImage,
    Memory,
    Parameters,
    Tokens,
    autocast_dtype,
    checkpoint_activations,
    count_parameters,
    count_tokens,
    estimate_memory,
    flops_per_image,
)
from emae_mm.cost.on_meta import build_model
from emae_mm.cost.schedule import Schedule, read_schedule
from emae_mm.paths import find_config


@dataclass(frozen=True)
class Cost:
    """What a training costs. ``hours`` is an estimate from FLOPs or a given rate, without data loading."""

    config: str
    half: bool
    parameters: Parameters
    tokens: Tokens
    flops: FlopsPerImage
    memory: Memory
    schedule: Schedule
    machine: Machine
    hours: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers, the totals among them."""
        numbers = asdict(self)
        for name in ("parameters", "flops", "memory"):
            numbers[name]["total"] = getattr(self, name).total
        return numbers


def estimate_cost(
    config: str | Path | Config,
    machine: Machine | None = None,
    images: int | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> Cost:
    """Count a config's training.

    Args:
        config: file, name below ``configs/``, or a config that has been read.
        machine: what it is to run on; 8 A100 by default.
        images: of the training set, where the config's is not a standard one.
        cfg_options: dotted keys and values that override the config.

    Raises:
        ConfigError: the config cannot be counted, its numbers contradict each other, or its data's size is not known.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(find_config(config))
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    machine = machine or Machine()
    model = build_model(cfg)
    schedule = read_schedule(cfg, machine.gpus, images)
    half = autocast_dtype(cfg) is not None
    flops = flops_per_image(cfg, model, schedule.batch)
    checkpoint_activations(cfg, model)
    return Cost(
        config=Path(cfg.filename).stem if cfg.filename else "",
        half=half,
        parameters=count_parameters(model),
        tokens=count_tokens(cfg, model),
        flops=flops,
        memory=estimate_memory(cfg, model, schedule),
        schedule=schedule,
        machine=machine,
        hours=machine.hours(schedule.images_seen, flops.total, half),
    )
