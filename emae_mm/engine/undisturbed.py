"""Looking at a model in the middle of its training without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from emae_mm.engine.random_states import get_random_states, set_random_states


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode and without gradients; afterwards all random states and modes are as before.

    Not ``inference_mode``: tensors a model might keep from inside could not be used in training.
    """
    states, modes = get_random_states(), [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield model
    finally:
        for module, training in modes:
            module.training = training
        set_random_states(states)
