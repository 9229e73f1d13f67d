"""mmcv without its compiled extension: a stand-in for ``mmcv._ext`` served by torchvision and plain torch.

This is the only place of the project that reaches into another package. Importing it loads neither torch nor mmcv.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from emae_mm.errors import UserError

EXTENSION = "mmcv._ext"

__all__ = ["EXTENSION", "MissingOperatorError", "install_fallback", "operators_in_use"]


class MissingOperatorError(UserError):
    """An operator was called that exists only in mmcv's compiled extension."""

    def __init__(self, operator: str):
        self.operator = operator
        super().__init__(
            f"mmcv's operator {operator!r} needs mmcv's compiled extension, which is not installed",
            "build onedl-mmcv with its operators (MMCV_WITH_OPS=1), as docs/compiled-ops.md describes",
        )

    def __reduce__(self):
        return type(self), (self.operator,)


class _StandIn(ModuleType):
    """The module object named ``mmcv._ext``: serves what it can, and for every other operator a clear error.

    ``mmcv.ops`` asks for all its operators by name when it is imported, so every public name must exist; what is not
    served fails when it is called.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what Python and tools ask of any module; never an operator
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        from emae_mm.ops.served import SERVED  # torchvision loads here, with mmcv.ops, and not before

        operator = SERVED.get(name) or _missing(name)
        setattr(self, name, operator)
        return operator


def _missing(name: str):
    def operator(*args, **kwargs):
        raise MissingOperatorError(name)

    operator.__name__ = operator.__qualname__ = name
    return operator


def operators_in_use() -> str:
    """Where mmcv's operators come from, found out without importing mmcv.

    Returns:
        ``'compiled'``, ``'stand-in'`` (installed by :func:`install_fallback`), ``'none'`` (mmcv is there, without
        either) or ``'no mmcv'``.
    """
    present = sys.modules.get(EXTENSION)
    if present is not None:
        return "stand-in" if isinstance(present, _StandIn) else "compiled"
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None:
        return "no mmcv"
    # find_spec('mmcv._ext') would import mmcv, which takes more than a second
    compiled = PathFinder.find_spec(EXTENSION, mmcv.submodule_search_locations)
    return "compiled" if compiled else "none"


def install_fallback() -> bool:
    """Put the stand-in into ``sys.modules`` where mmcv has no compiled extension; a second call changes nothing.

    It must be called before ``mmcv.ops`` is first imported. The first operator that runs says in the log, once per
    process, that the stand-in is in use.

    Returns:
        Whether the stand-in is in place.
    """
    if operators_in_use() == "none":
        module = _StandIn(EXTENSION, "Stand-in for mmcv's compiled extension, installed by emae_mm.ops.")
        module.__spec__ = ModuleSpec(EXTENSION, loader=None, origin="emae_mm.ops")
        sys.modules[EXTENSION] = module
    return operators_in_use() == "stand-in"
