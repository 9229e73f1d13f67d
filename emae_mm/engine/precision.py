"""Mixed precision without a loss scaler, on any device."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from emae_mm.errors import ConfigError
from emae_mm.registry import OPTIM_WRAPPERS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def bfloat16_supported() -> bool:
    """Whether the device a run would use computes in bfloat16 (every CPU does, if slowly)."""
    return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)


def check_precision(cfg: Config) -> None:
    """float16 with a loss scaler (``AmpOptimWrapper``) needs a GPU.

    Raises:
        ConfigError: there is none.
    """
    kind = (cfg.get("optim_wrapper") or {}).get("type", "")
    if str(kind).rpartition(".")[2] == "AmpOptimWrapper" and not torch.cuda.is_available():
        raise ConfigError(
            "optim_wrapper.type='AmpOptimWrapper' (float16 with a loss scaler) does not run on a CPU",
            "use --amp or optim_wrapper.type='emae_mm.AutocastOptimWrapper', which compute in bfloat16",
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
        if dtype not in DTYPES:
            raise ConfigError(
                f"dtype={dtype!r} is not one of {sorted(DTYPES)}",
                "use 'bfloat16', or optim_wrapper.type='AmpOptimWrapper' for float16 with a loss scaler on a GPU",
            )
        if dtype == "bfloat16" and not bfloat16_supported():
            raise ConfigError(
                "this GPU does not compute in bfloat16", "use optim_wrapper.type='AmpOptimWrapper' or dtype='float32'"
            )
        super().__init__(**kwargs)
        self.dtype = DTYPES[dtype]

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """One forward pass: gradient-accumulation bookkeeping and autocast."""
        enabled = self.dtype is not torch.float32
        with super().optim_context(model), torch.autocast(get_device(), self.dtype, enabled=enabled):
            yield
