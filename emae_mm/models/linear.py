"""Linear layers that use oneDNN's matrix product for float32 on a CPU.

torch multiplies float32 matrices on a CPU with MKL; oneDNN, which torch brings along too and uses for bfloat16, is
faster for a transformer's shapes where the CPU is not of MKL's own maker (``benchmarks/pretrain_step.py`` measures the
whole step). Everywhere else (GPU, half precision, float64, autocast) the layers are torch's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_product = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def _onednn(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(tokens, weight, bias, "none", [], "")


# A custom operator, so that a compiler leaves the product to oneDNN and fuses what stands around it.
@torch.library.custom_op("emae_mm::linear", mutates_args=(), device_types="cpu")
def _linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _onednn(tokens, weight, bias)


@_linear.register_fake
def _(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return tokens.new_empty(*tokens.shape[:-1], weight.shape[0])


def _keep(ctx, inputs: tuple, output: Tensor) -> None:
    tokens, weight, bias = inputs
    ctx.save_for_backward(tokens, weight)
    ctx.has_bias = bias is not None


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    tokens, weight = ctx.saved_tensors
    rows, columns = grad.flatten(0, -2), tokens.flatten(0, -2)
    for_tokens = _linear(grad, weight.t(), None) if ctx.needs_input_grad[0] else None
    for_weight = None
    if ctx.needs_input_grad[1]:  # the form whose second factor is the wider one is the faster one
        wide = weight.shape[0] >= weight.shape[1]
        for_weight = _linear(columns.t(), rows.t(), None).t() if wide else _linear(rows.t(), columns.t(), None)
    for_bias = rows.sum(dim=0) if ctx.has_bias and ctx.needs_input_grad[2] else None
    return for_tokens, for_weight, for_bias


_linear.register_autograd(_backward, setup_context=_keep)


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: (..., C), (D, C), (D,) -> (..., D), with oneDNN where the module's description says."""
    plain = (
        _product is None
        or tokens.device.type != "cpu"
        or tokens.dtype != torch.float32
        or torch.is_autocast_enabled("cpu")
        or not torch.backends.mkldnn.enabled
    )
    return F.linear(tokens, weight, bias) if plain else _linear(tokens, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` whose product is :func:`linear`."""

    def forward(self, tokens: Tensor) -> Tensor:
        return linear(tokens, self.weight, self.bias)


def use_fast_linear(module: nn.Module) -> None:
    """Turn every ``nn.Linear`` below ``module`` into a :class:`Linear`; parameters and their names stay."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = Linear
