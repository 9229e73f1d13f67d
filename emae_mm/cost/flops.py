"""FLOPs by torch's own counter: matrix products and convolutions, two FLOPs for each multiplication and addition.

Count on the meta device: nothing is computed there, and attention appears as the two matrix products it is. On a CPU
torch's fused attention is missing from the counter's list, and on a GPU its backward pass counts a recomputation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Flops:
    """Of one step, whatever its batch.

    Attributes:
        forward: of the forward pass.
        total: of forward and backward pass.
        modules: forward and backward of each called module by its name in the model, submodules included.
    """

    forward: int
    total: int
    modules: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def backward(self) -> int:
        """Of the backward pass."""
        return self.total - self.forward

    def of(self, prefix: str) -> int:
        """FLOPs of all called modules whose name begins with ``prefix``, none counted twice."""
        inside = {name for name in self.modules if f"{name}.".startswith(f"{prefix}.")}
        outermost = [name for name in inside if not any(name.startswith(f"{other}.") for other in inside)]
        return sum(self.modules[name] for name in outermost)


class _Rooted(nn.Module):
    """Gives every module below ``model`` a name for torch's module tracker, also where only a part is called."""

    def __init__(self, model: nn.Module | None, step: Callable[[], Tensor]):
        super().__init__()
        self.model = model
        self.step = step

    def forward(self) -> Tensor:
        return self.step()


def count_flops(step: Callable[[], Tensor | Mapping[str, Tensor]], model: nn.Module | None = None) -> Flops:
    """Count one forward pass and, where its result has a gradient, the backward pass from it.

    Args:
        step: a forward pass; returns a scalar loss, or losses by name, of which those with ``loss`` in their name
            are added up.
        model: for a count by module: the module whose parts ``step`` calls. Needs a step without recomputation
            (activation checkpointing), which torch's tracker of modules does not follow.

    Returns:
        FLOPs of the whole step. Parameters' gradients are left as they come.
    """
    root = _Rooted(model, step)
    counter = FlopCounterMode(display=False) if model is not None else FlopCounterMode(display=False, depth=0)
    with counter:
        result = root()
        forward = counter.get_total_flops()
        if isinstance(result, Mapping):
            result = sum(value for name, value in result.items() if "loss" in name)
        if result.requires_grad:
            result.backward()
    total = counter.get_total_flops()
    prefix = "_Rooted.model."
    modules = {
        name.removeprefix(prefix): sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name.startswith(prefix)
    }
    return Flops(forward, total, modules)
