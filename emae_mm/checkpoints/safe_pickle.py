"""Pickles of arrays, as detectron2 publishes its models, read without running code from them."""

import codecs
import pickle
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

STATISTICS = ("min", "max", "current", "mean")


class RefusedError(pickle.UnpicklingError):
    """A pickle names something that is neither an array nor a container: it would run code."""


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What Python 3 writes for bytes in old pickle protocols; no other codec is needed."""
    if encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"it asks for the codec {encoding!r}")
    return codecs.encode(text, "latin1")


@cache
def _allowed() -> dict[tuple[str, str], Any]:
    """Everything a pickle may name: arrays, their numbers and ordered dictionaries."""
    from numpy._core import multiarray, numeric

    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _latin1,
    }
    for package in ("numpy.core", "numpy._core"):  # the name before numpy 2, and since
        allowed[f"{package}.multiarray", "_reconstruct"] = multiarray._reconstruct
        allowed[f"{package}.multiarray", "scalar"] = multiarray.scalar
        allowed[f"{package}.numeric", "_frombuffer"] = numeric._frombuffer
    return allowed


@cache
def training_globals() -> list[Any]:
    """What torch's safe unpickler needs to know to read the histories in mmengine's training checkpoints."""
    from mmengine.logging import HistoryBuffer
    from numpy._core import multiarray

    # pickles name a function by its place, which numpy 2 changed
    functions = [multiarray._reconstruct, multiarray.scalar]
    old = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    kinds = {type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_, np.uint8)}
    renamed = [(_latin1, "_codecs.encode"), (_statistic, "builtins.getattr"), *old]
    return [HistoryBuffer, np.ndarray, np.dtype, slice, *functions, *renamed, *sorted(kinds, key=str)]


def _statistic(owner: Any, name: str) -> Any:
    """What stands for ``getattr``, by which a history names its four statistics; anything else could reach any code."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in STATISTICS:
        raise RefusedError(f"it asks for the attribute {name!r} of {owner!r}")
    return getattr(owner, name)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _allowed()[module, name]
        except KeyError:
            raise RefusedError(f"it names {module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise RefusedError("it refers to objects outside the file")


def read_pickle(path: str | Path) -> Any:
    """What a pickle of containers, plain values and numpy arrays holds.

    Raises:
        RefusedError: it names anything else.
        pickle.UnpicklingError: it is damaged; or whatever else damage leads to.
    """
    with open(path, "rb") as file:
        return _ArrayUnpickler(file, encoding="latin1").load()
