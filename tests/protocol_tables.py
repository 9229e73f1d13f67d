"""Tables of the published protocols (tests/protocols/**/*.toml), and what a full-size config really does.

A table serves one or several configs (``configs``) and may take what it does not state from another (``inherits``, a
path below tests/protocols), all sections or those in ``only``; a path in a section's place takes that table's section.
Its sections, each with its ``source``:

- ``record``: the record's static part.
- ``training``: ``batch`` (images of one optimiser step on all GPUs), ``epochs`` or ``iterations``, ``wrapper`` (the
  optimiser wrapper's type: whether mixed precision is part of the protocol), ``optimizer`` (class), and any of the
  optimiser's defaults (``lr``, ``betas``, ``weight_decay``...), ``clip_grad`` ({} where there is none).
- ``schedule``: ``warmup`` and ``begin`` of the decay (both in epochs or iterations, as the training), ``start`` (first
  rate of the warm-up as a share of the full one), ``shape`` (cosine, linear, steps with ``milestones`` and ``gamma``),
  ``final`` (last rate as a share), and ``points``: [epoch or iteration, rate].
- ``groups``: ``layers``, ``layer_decay``, and for each layer the number of parameters with (``decayed``) and without
  (``undecayed``) weight decay. The last layer holds whatever is not scaled.
- ``parameters``: for some names ``layer`` and any option of their group, such as ``weight_decay``; {} for a frozen one.
- ``model``: attributes of the built model by dotted path; ``len(path)`` and ``type(path)`` are understood.
- ``config``: values of the config by dotted path.
- ``data``: ``train`` and ``test``: the whole pipelines.
"""

import copy
import functools
import json
import math
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.utils import import_modules_from_strings

from emae_mm import registry  # noqa: F401  installs the operators' stand-in before mmdet loads
from emae_mm.paths import configs_dir, find_config

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings this one
    import tomli as tomllib

TABLES = Path(__file__).parent / "protocols"
TASKS = ("classification", "detection", "segmentation")
SMALL = ("demo", "tiny", "ablation")
SECTIONS = ("record", "config", "data", "model", "training", "schedule", "groups", "parameters")
VARIANTS = "small_variants.toml"
RECIPE = (
    "default_scope", "custom_imports", "pretrained", "record", "model", "optim_wrapper", "param_scheduler",
    "auto_scale_lr", "log_processor",
    *(f"{split}_{part}" for split in ("train", "val", "test") for part in ("dataloader", "evaluator", "cfg")),
)  # fmt: skip
"""The parts of a config that say what is computed; variables beside them have no effect of their own."""


def transfer_configs(small: bool) -> list[str]:
    """Paths below configs/ of all full-size transfer configs, or of all small ones."""
    found = [p.relative_to(configs_dir()) for task in TASKS for p in sorted((configs_dir() / task).rglob("*.py"))]
    return [path.as_posix() for path in found if (path.parent.name in SMALL) == small]


@functools.cache
def read_table(name: str) -> dict:
    """A table with everything it inherits."""
    table = tomllib.loads((TABLES / name).read_text(encoding="utf-8"))
    base = read_table(table["inherits"]) if "inherits" in table else {}
    merged = {key: value for key, value in base.items() if key in table.get("only", base)}
    for key, value in table.items():
        if key in SECTIONS and isinstance(value, str):
            merged[key] = read_table(value)[key]
        else:
            merged[key] = {**merged.get(key, {}), **value} if key in SECTIONS else value
    return merged


def table_names() -> list[str]:
    return sorted(path.relative_to(TABLES).as_posix() for path in TABLES.rglob("*.toml") if path.name != VARIANTS)


def tables_by_config() -> dict[str, list[str]]:
    """Names of the tables that claim each config."""
    claims: dict[str, list[str]] = {}
    for name in table_names():
        for config in read_table(name)["configs"]:
            claims.setdefault(config, []).append(name)
    return claims


def variant_rules() -> list[dict]:
    """What small variants may change: of each rule the ``configs`` (glob), the ``keys`` (globs) and the ``reason``."""
    return [rule for path in sorted(TABLES.rglob(VARIANTS)) for rule in tomllib.loads(path.read_text("utf-8"))["rule"]]


def full_size_base(name: str) -> str | None:
    """The nearest full-size config that a small one inherits from."""
    waiting = [find_config(name)]
    while waiting:
        path = waiting.pop(0)
        below = path.relative_to(configs_dir())
        if below.parts[0] in TASKS and path.parent.name not in SMALL:
            return below.as_posix()
        waiting += [(path.parent / base).resolve() for base in Config._get_base_files(str(path))]
    return None


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """A config's values by dotted path; the steps of a pipeline are named by their types, not by their places."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        by_type = path.endswith("pipeline")
        value = {str(item["type"].split(".")[-1] if by_type else i): item for i, item in enumerate(value)}
    if isinstance(value, dict) and value:
        parts = [flatten(item, f"{path}.{key}" if path else key) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def differences(name: str, other: str) -> dict[str, tuple]:
    """What two configs have different, with both values (``"absent"`` where one has none)."""
    ours, theirs = (
        flatten({key: plain(config[key]) for key in RECIPE if key in config}) for config in (load(name), load(other))
    )
    found = {key: (ours.get(key, "absent"), theirs.get(key, "absent")) for key in {**ours, **theirs}}
    return {key: values for key, values in found.items() if values[0] != values[1]}


@functools.cache
def load(name: str) -> Config:
    return Config.fromfile(find_config(name))


@functools.cache
def build(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer | None]:
    """The full-size model without memory, and its optimiser (None for a config that trains nothing)."""
    import_modules_from_strings(["mmpretrain.models", "mmdet.models", "mmseg.models"])
    config = copy.deepcopy(load(name))  # building writes into it
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        model = MODELS.build(config.model)
        if not config.get("optim_wrapper"):
            return model, None
        wrapper = dict(config.optim_wrapper)
        wrapper["type"] = "OptimWrapper"  # mixed precision needs a GPU, its parameter groups do not
        wrapper.pop("loss_scale", None)
        return model, build_optim_wrapper(model, wrapper).optimizer


def batch(name: str) -> int:
    """Images of one optimiser step on the GPUs that the file's name states, as in ``_8xb128-``."""
    config = load(name)
    gpus, images = map(int, re.search(r"_(\d+)xb(\d+)[-_]", name).groups())
    step = config.train_dataloader.batch_size * config.optim_wrapper.get("accumulative_counts", 1)
    return gpus * images if step == images else -1


def look_up(root: Any, path: str) -> Any:
    """A value by dotted path through attributes, keys and indices, as TOML would write it; ``"absent"`` if none is."""
    match = re.fullmatch(r"(len|type)\((.*)\)", path)
    try:
        found = look_up_raw(root, match[2] if match else path)
    except (AttributeError, IndexError, KeyError):
        return "absent"
    if match:
        return len(found) if match[1] == "len" else type(found).__name__
    return plain(found)


def look_up_raw(root: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(root, dict):
            root = root[part]
        elif isinstance(root, (list, tuple)):
            root = root[int(part)]
        else:
            root = getattr(root, part)
    return root


def plain(value: Any) -> Any:
    """Numbers, texts, lists and dicts only."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return {} if value is None else value  # TOML has no null


def settings_by_name(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    """The optimiser's options for every trained parameter."""
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: groups[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def count_by_layer(settings: dict[str, dict], lr: float, layers: int, rate: float) -> dict[str, list[int]]:
    """How many parameters of each layer decay and how many do not.

    Raises:
        AssertionError: a learning rate that belongs to no layer.
    """
    counts: Counter = Counter()
    for name, options in settings.items():
        layer = layer_of(options["lr"], lr, layers, rate)
        assert layer is not None, f"{name} has learning rate {options['lr']}, which no layer has"
        counts[layer, options["weight_decay"] > 0] += 1
    return {
        key: [counts[layer, decays] for layer in range(layers)]
        for key, decays in (("decayed", True), ("undecayed", False))
    }


def layer_of(found: float, lr: float, layers: int, rate: float) -> int | None:
    for layer in range(layers):
        if math.isclose(found, lr * rate ** (layers - 1 - layer), rel_tol=1e-9):
            return layer
    return None


def learning_rates(config: Config, lr: float, steps: int, steps_per_epoch: int) -> list[float]:
    """The rate at every step, by mmengine's own schedulers."""
    schedule = plain(config.param_scheduler)
    relative = all(part.get("eta_min", 0) == 0 for part in schedule)  # no absolute rate but the full one
    rates = simulate(json.dumps(schedule), 1.0 if relative else lr, steps, steps_per_epoch)
    return [rate * lr for rate in rates] if relative else list(rates)


@functools.cache
def simulate(schedule: str, lr: float, steps: int, steps_per_epoch: int) -> tuple[float, ...]:
    """The rates of a schedule, given as JSON."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    parts = []
    for spec in json.loads(schedule):
        by_epoch = spec.get("by_epoch", True)
        assert not by_epoch or spec.get("convert_to_iter_based"), "the rate is to change with every step"
        # the Runner fills in the same end
        defaults = dict(end=steps // steps_per_epoch if by_epoch else steps)
        length = dict(epoch_length=steps_per_epoch) if by_epoch else {}
        parts.append(PARAM_SCHEDULERS.build({**defaults, **length, **spec, "optimizer": optimizer}))
    rates = []
    with warnings.catch_warnings():
        # there are no gradients and hence no optimiser steps between the schedulers'
        warnings.filterwarnings("ignore", message="Detected call of `scheduler.step")
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            for part in parts:
                part.step()
    return tuple(rates)


def published_rate(schedule: dict, lr: float, step: float, length: int, unit: int = 1) -> float:
    """The rate at a step as published, in closed form.

    Args:
        schedule: the table's section.
        lr: full rate.
        step: the step, from 0.
        length: steps of the training.
        unit: steps of one unit of the section's ``warmup``, ``begin`` and ``milestones``.
    """
    warmup, begin = schedule["warmup"] * unit, schedule["begin"] * unit
    # mmengine reaches the full rate one step before the warm-up's end
    reached = min(step / (warmup - 1), 1)
    rate = lr * (schedule["start"] + (1 - schedule["start"]) * reached)
    done = max(step - begin, 0) / (length - begin)
    if schedule["shape"] == "steps":
        return rate * schedule["gamma"] ** sum(step >= milestone * unit for milestone in schedule["milestones"])
    share = 0.5 * (1 + math.cos(math.pi * done)) if schedule["shape"] == "cosine" else 1 - done
    return rate * (schedule["final"] + (1 - schedule["final"]) * share)
