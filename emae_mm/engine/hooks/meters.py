"""Hooks that measure a run: gradient norm and images a step. The line they end in is made in ``engine.log``."""

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy

from emae_mm.registry import HOOKS

GRADIENT_NORM = "train/grad_norm"
IMAGES = "train/images"


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """The 2-norm of all gradients an optimiser is about to use, a float32 scalar; 0 without any.

    A fused optimiser is given gradients that still carry the loss scaler's factor; it is taken out here.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float())
    scale = getattr(optimizer, "grad_scale", None)
    return norm if scale is None else norm / scale.to(norm.device)


@HOOKS.register_module()
class GradientNormHook(Hook):
    """Logs the gradient norm of every optimiser step as ``grad_norm``, before clipping.

    Where the optimiser wrapper clips by norm it has computed the norm already, and this hook does nothing. Under FSDP
    the norm is that of the whole gradient.
    """

    priority = "HIGHEST"  # NonFiniteLossHook reads the norm

    def __init__(self):
        self._handle, self._norm = None, None

    def before_train(self, runner) -> None:
        wrapper = runner.optim_wrapper
        if wrapper.clip_grad_kwargs and wrapper.grad_name == "grad_norm":
            return
        model = runner.model
        sharded = (
            isinstance(model, FullyShardedDataParallel) and model.sharding_strategy is not ShardingStrategy.NO_SHARD
        )
        group = model.process_group if sharded else None

        def measure(optimizer: torch.optim.Optimizer, *_) -> None:
            norm = gradient_norm(optimizer)
            if sharded:
                norm = norm.square().to(next(model.parameters()).device)
                all_reduce(norm, group=group)
                norm = norm.sqrt()
            self._norm = norm

        self._handle = wrapper.optimizer.register_step_pre_hook(measure)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self._norm is not None:  # the step is done: reading the number waits for nothing that is still to come
            runner.message_hub.update_scalar(GRADIENT_NORM, self._norm.item())
            self._norm = None

    def after_train(self, runner) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Counts the images of a pass over all processes (their shares are equal), for the log's images/s."""

    priority = "HIGH"

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        runner.message_hub.update_scalar(IMAGES, images_in(data_batch) * get_world_size())


def images_in(data_batch) -> int:
    """Images in a batch as a data loader gives it; several views of an image count once."""
    inputs = data_batch["inputs"] if isinstance(data_batch, dict) else data_batch
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    if samples:
        return len(samples)
    views = isinstance(inputs, (list, tuple)) and len(inputs) and getattr(inputs[0], "ndim", 0) == 4
    return len(inputs[0]) if views else len(inputs)
