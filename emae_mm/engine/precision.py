"""Mixed precision without a loss scaler, on any device."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from emae_mm.data.checks.config import type_name
from emae_mm.errors import ConfigError
from emae_mm.registry import OPTIM_WRAPPERS

_AMP = "use --amp, or optim_wrapper.type='AmpOptimWrapper' on a GPU"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def bfloat16_supported() -> bool:
    """Whether the device a run would use computes in bfloat16 (every CPU does, if slowly)."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def use_amp(cfg: Config, chosen: Collection[str] = ()) -> None:
    """Train in mixed precision, in place: bfloat16, or float16 with a loss scaler on GPUs without bfloat16.

    Args:
        cfg: with an ``optim_wrapper``.
        chosen: dotted keys the command line sets, which ``--amp`` must not undo.

    Raises:
        ConfigError: the config trains nothing, or the command line chooses a precision by itself.
    """
    if not cfg.get("optim_wrapper"):
        raise ConfigError("--amp is given, but this config trains nothing (it has no optim_wrapper)", "leave it out")
    both = sorted({"optim_wrapper.type", "optim_wrapper.dtype", "optim_wrapper.loss_scale"} & set(chosen))
    if both:
        raise ConfigError(f"--amp and {both[0]} both choose the precision", "give one of them")
    if bfloat16_supported():
        cfg.optim_wrapper.type, cfg.optim_wrapper.dtype = "emae_mm.AutocastOptimWrapper", "bfloat16"
        cfg.optim_wrapper.pop("loss_scale", None)  # float16's
    elif torch.cuda.is_available():
        cfg.optim_wrapper.type, cfg.optim_wrapper.dtype = "AmpOptimWrapper", "float16"


def check_precision(cfg: Config) -> None:
    """Refuse precisions that the device does not have, and options that nothing reads.

    Raises:
        ConfigError: float16 with a loss scaler (``AmpOptimWrapper``) without a GPU, a ``dtype`` that the optimiser
            wrapper does not know, or a ``fp16`` key, which OpenMMLab's older versions read.
    """
    if cfg.get("fp16"):
        raise ConfigError("the key 'fp16' is read by nothing: training would be in float32", f"{_AMP}; remove 'fp16'")
    wrapper = cfg.get("optim_wrapper") or {}
    kind = type_name(wrapper) or "OptimWrapper"
    given = {key: wrapper[key] for key in ("dtype", "loss_scale") if key in wrapper}
    if kind == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ConfigError(
            "optim_wrapper.type='AmpOptimWrapper' (float16 with a loss scaler) does not run on a CPU",
            "use --amp or optim_wrapper.type='emae_mm.AutocastOptimWrapper', which compute in bfloat16",
        )
    if kind == "AutocastOptimWrapper":
        require_dtype(given.get("dtype", "bfloat16"))
        given.pop("dtype", None)
    if given and kind in ("OptimWrapper", "AutocastOptimWrapper"):
        key, value = next(iter(given.items()))
        raise ConfigError(f"optim_wrapper.{key}={value!r} is no option of {kind}", f"{_AMP}, or leave it out")


def require_dtype(dtype: str) -> None:
    """Raise ConfigError unless ``dtype`` is one of :data:`DTYPES` and the device computes in it."""
    if dtype not in DTYPES:
        raise ConfigError(
            f"optim_wrapper.dtype={dtype!r} is not one of {sorted(DTYPES)}",
            "use 'bfloat16', or optim_wrapper.type='AmpOptimWrapper' for float16 with a loss scaler on a GPU",
        )
    if dtype == "bfloat16" and not bfloat16_supported():
        raise ConfigError(
            "this GPU does not compute in bfloat16", "use optim_wrapper.type='AmpOptimWrapper' or dtype='float32'"
        )


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper whose forward passes run under ``torch.autocast``, on GPU or CPU.

    bfloat16 has float32's range and needs no loss scaler; for float16 on a GPU use mmengine's ``AmpOptimWrapper``.

    Args:
        dtype: ``"bfloat16"``, or ``"float32"`` for no autocast.
        **kwargs: see mmengine's OptimWrapper.

    Raises:
        ConfigError: unknown ``dtype``, or a GPU without bfloat16.
    """

    def __init__(self, dtype: str = "bfloat16", **kwargs):
        require_dtype(dtype)
        super().__init__(**kwargs)
        self.dtype = DTYPES[dtype]

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """One forward pass: gradient-accumulation bookkeeping and autocast."""
        enabled = self.dtype is not torch.float32
        with super().optim_context(model), torch.autocast(get_device(), self.dtype, enabled=enabled):
            yield
