"""``torch.compile`` by one option: the deterministic part of a model, found by name."""

from functools import reduce
from typing import Any

import torch
from torch import nn

from emae_mm.errors import ConfigError, UserError

CANDIDATES = ("losses", "backbone.forward")
"""What is compiled when neither the option nor the model (``compile_target``) says: the first that the model has.

Masks are drawn before ``losses`` is called, so nothing in it is random but dropout.
"""


def compile_options(option: bool | dict | None) -> dict[str, Any] | None:
    """The keyword arguments of ``torch.compile`` and the ``target``; None for no compilation.

    Args:
        option: the config's ``compile``: True, or a dict of ``target`` (a dotted method of the model) and of what
            ``torch.compile`` takes; ``disable=True`` switches it off.

    Raises:
        ConfigError: neither a truth value nor a dict.
    """
    if not isinstance(option or {}, (bool, dict)):
        raise ConfigError(f"compile={option!r} is neither True nor a dict", "use compile=True or dict(mode=...)")
    if not option and not isinstance(option, dict):
        return None
    options = {} if option is True else dict(option)
    return None if options.pop("disable", False) else options


def compile_target(model: nn.Module, options: dict[str, Any]) -> str:
    """Compile a method of the model in place, so that names of parameters stay what they are.

    Args:
        model: not wrapped.
        options: from :func:`compile_options`.

    Returns:
        the target's name.

    Raises:
        ConfigError: the model has no such method.
        UserError: there is no C++ compiler, which the default backend needs on a CPU.
    """
    options = dict(options)
    wanted = options.pop("target", None) or getattr(model, "compile_target", None)
    for target in [wanted] if wanted else CANDIDATES:
        *path, method = target.split(".")
        owner = reduce(lambda module, name: getattr(module, name, None), path, model)
        if callable(getattr(owner, method, None)):
            break
    else:
        raise ConfigError(
            f"compile: {type(model).__name__} has no method {wanted or ' or '.join(CANDIDATES)}",
            "name one with compile=dict(target='...')",
        )
    require_compiler(options)
    setattr(owner, method, torch.compile(getattr(owner, method), **options))
    return target


def compile_units(modules: list[nn.Module], options: dict[str, Any]) -> None:
    """Compile modules in place, each for itself: what sharded models are compiled by.

    Raises:
        ConfigError: a ``target`` is named, too.
        UserError: as :func:`compile_target`.
    """
    if "target" in options:
        raise ConfigError(
            f"compile.target={options['target']!r} cannot be chosen under FSDP, which compiles block by block",
            "leave compile.target out",
        )
    require_compiler(options)
    for module in modules:
        module.compile(**options)


def require_compiler(options: dict[str, Any]) -> None:
    """Raise UserError where inductor would not find a C++ compiler for the CPU."""
    if torch.cuda.is_available() or options.get("backend", "inductor") != "inductor":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError(
            "torch.compile needs a C++ compiler on a CPU, and there is none",
            "install g++ (or name one in the variable CXX), or leave --compile out",
        ) from error
