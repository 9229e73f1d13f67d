"""Memory of a training step, by following every tensor an eager step makes, on any device, also on meta."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

GIB = 2**30


class LiveMemory(TorchDispatchMode):
    """Bytes of the tensors that exist, and the most there were at once, while this mode is entered.

    Tensors that were there before are told by :meth:`ignore`; tensors that share memory count once.

    Attributes:
        now: bytes made under this mode and not yet freed.
        peak: the largest value of ``now``.
    """

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return made

    def _follow(self, tensor: Tensor, counted: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes() if counted else 0
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._freed, key).atexit = False

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Count these tensors and all that share their memory for nothing, from now on."""
        for tensor in tensors:
            self._follow(tensor, counted=False)
            key = tensor.untyped_storage()._cdata
            self.now -= self._sizes[key]
            self._sizes[key] = 0


LOWERED = ("linear", "conv2d")
RAISED = ("layer_norm", "softmax", "log_softmax", "cross_entropy", "mse_loss")
"""What of torch's autocast lists the models here call, of ``torch.nn.functional``."""


@contextmanager
def as_on_gpu(dtype: torch.dtype | None = None) -> Iterator[None]:
    """In here meta tensors go a GPU's way: fused attention, which keeps no attention matrix, and 16-bit autocast.

    torch offers neither on the meta device. (A torch-function mode would be left in the backward pass, where
    checkpointed modules are computed again.)

    Args:
        dtype: that of autocast, or None for none.
    """
    weights: dict[int, Tensor] = {}  # autocast converts a parameter once in a forward pass

    def lower(value):
        if dtype is None or not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if isinstance(value, nn.Parameter) and value.requires_grad and torch.is_grad_enabled():
            if id(value) not in weights:
                weights[id(value)] = value.to(dtype)
            return weights[id(value)]
        return value.to(dtype)

    def upper(value):
        return value.float() if isinstance(value, Tensor) and value.dtype == dtype else value

    def fused_attention(query: Tensor, key: Tensor, value: Tensor, *args, **kwargs) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(lower(query), lower(key), lower(value))[0]

    with ExitStack() as stack:
        stack.enter_context(patch.object(F, "scaled_dot_product_attention", fused_attention))
        for change, names in ((lower, LOWERED), (upper, RAISED)):
            for name in names if dtype is not None else ():
                stack.enter_context(patch.object(F, name, _after(change, getattr(F, name))))
        yield


def _after(change: Callable, function: Callable) -> Callable:
    @wraps(function)
    def changed(*args, **kwargs):
        return function(*map(change, args), **{name: change(value) for name, value in kwargs.items()})

    return changed


def peak_of_step(model: nn.Module, step: Callable[[], Tensor], inputs: Iterable[Tensor] = ()) -> int:
    """Most bytes at once in forward and backward pass beyond parameters and their gradients.

    Args:
        model: whose parameters, buffers and gradients do not count.
        step: the forward pass; returns the scalar loss.
        inputs: tensors made before that stay for the whole step; they count.

    Returns:
        bytes.
    """
    live, inputs = LiveMemory(), list(inputs)
    live.ignore([*model.parameters(), *model.buffers(), *inputs])
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda own: live.ignore([own.grad]))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]
    with live:
        loss = step()
        if loss.requires_grad:
            loss.backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return live.peak + bytes_of(inputs)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors that do not share memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def states_per_parameter(optimizer: dict) -> int:
    """Tensors as large as the parameter that an optimiser keeps for it: 2 for AdamW, 1 for SGD with momentum.

    Args:
        optimizer: its config.
    """
    from mmengine.registry import OPTIMIZERS

    parameter = nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.ones(4, 4)
    built = OPTIMIZERS.build(dict(optimizer), default_args=dict(params=[parameter]))
    built.step()
    state = built.state[parameter].values()
    return sum(isinstance(value, Tensor) and value.shape == parameter.shape for value in state)
