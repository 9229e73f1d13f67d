"""The formats of checkpoints; a module in this folder with a :class:`~.base.Format` in it adds one."""

import importlib
import pkgutil
from functools import cache

from emae_mm.checkpoints.formats.base import EncoderTensors, Format
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.errors import CheckpointError

__all__ = ["EncoderTensors", "Format", "all_formats", "recognise", "targets"]


@cache
def all_formats() -> dict[str, Format]:
    """Every format by its name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {kind.name: kind() for kind in sorted(Format.__subclasses__(), key=lambda kind: kind.name)}


def targets() -> list[str]:
    """Names of the formats that can be written."""
    return [name for name, kind in all_formats().items() if kind.is_target]


def recognise(checkpoint: Checkpoint) -> Format:
    """The format of a checkpoint, judged by the names in it.

    Raises:
        CheckpointError: none; the first names are listed.
    """
    for kind in all_formats().values():
        if kind.detect(checkpoint):
            return kind
    raise CheckpointError(
        f"checkpoint {checkpoint.source} is of no known format; its first names are {list(checkpoint.tensors)[:5]}",
        f"give a ViT's checkpoint in one of the formats {', '.join(all_formats())}",
    )
