"""The LARS that linear probes use, against a plain float64 transcription of its rule."""

import numpy as np
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import emae_mm.registry  # noqa: F401

MOMENTUM, TRUST = 0.9, 0.001


def reference_step(value, grad, buffer, lr):
    """One step in float64: trust ratio for 2-D, none for 1-D; the buffer holds updates without the learning rate."""
    if value.ndim > 1:
        weight_norm, grad_norm = np.linalg.norm(value), np.linalg.norm(grad)
        if weight_norm > 0 and grad_norm > 0:
            grad = grad * (TRUST * weight_norm / grad_norm)
    buffer = MOMENTUM * buffer + grad
    return value - lr * buffer, buffer


def build(model):
    return build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            optimizer=dict(type="emae_mm.LARS", lr=6.4, momentum=MOMENTUM, weight_decay=0.0, always_adapt=True),
            constructor="emae_mm.LayerDecayOptimWrapperConstructor",
            paramwise_cfg=dict(options_1d=dict(always_adapt=False)),
        ),
    )


def test_first_steps_under_a_changing_rate():
    model = nn.Linear(7, 5)
    optimizer = build(model).optimizer
    values = {name: parameter.detach().double().numpy() for name, parameter in model.named_parameters()}
    buffers = {name: np.zeros_like(value) for name, value in values.items()}
    rng = np.random.default_rng(0)
    for lr in (0.64, 1.28, 6.4, 3.0, 0.1):  # the rate changes: a buffer that had it multiplied in would differ
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, parameter in model.named_parameters():
            grad = rng.normal(size=values[name].shape)
            parameter.grad = torch.tensor(grad, dtype=torch.float32)
            values[name], buffers[name] = reference_step(values[name], grad, buffers[name], lr)
        optimizer.step()
    for name, parameter in model.named_parameters():
        # float32 against float64 over five steps
        np.testing.assert_allclose(parameter.detach().numpy(), values[name], rtol=2e-5, atol=2e-5, err_msg=name)


def test_one_dimensional_parameters_are_unscaled_and_zero_weights_move():
    model = nn.Linear(4, 3)
    nn.init.zeros_(model.weight)
    optimizer = build(model).optimizer
    bias = model.bias.detach().clone()
    model.weight.grad, model.bias.grad = torch.ones_like(model.weight), torch.ones_like(model.bias)
    optimizer.step()
    torch.testing.assert_close(model.bias, bias - 6.4)  # protocol test 8: plain SGD
    torch.testing.assert_close(model.weight, torch.full_like(model.weight, -6.4))  # no norm, no ratio
