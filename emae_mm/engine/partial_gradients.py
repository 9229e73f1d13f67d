"""What a checkpoint within a gradient accumulation must not lose: the gradients of the passes already made."""

import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.optim import OptimWrapper
from torch import Tensor, nn


def average_partial_gradients(model: nn.Module, optim_wrapper: OptimWrapper | dict | None) -> dict[str, Tensor]:
    """The gradients of an unfinished accumulation by parameter name, on the CPU; empty between two accumulations.

    Every process has gradients of its own samples then. They are replaced by their average, which leaves the average
    that the last pass makes as it is; so one set serves all processes of this run and of the resumed one.

    Args:
        model: not wrapped; all processes must call this.
        optim_wrapper: of the run.
    """
    if not isinstance(optim_wrapper, OptimWrapper) or optim_wrapper.should_update():
        return {}
    parameters = dict(model.named_parameters())
    with_gradient = {name for name, parameter in parameters.items() if parameter.grad is not None}
    found = {}
    for name in sorted(set().union(*all_gather_object(with_gradient))):  # a process may have left a parameter unused
        parameter = parameters[name]
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        all_reduce(parameter.grad, op="mean")
        found[name] = parameter.grad.detach().cpu().clone()
    return found


def restore_partial_gradients(model: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Give parameters the gradients that :func:`average_partial_gradients` returned."""
    for name, parameter in model.named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter)
