"""Fully sharded data parallelism: every process holds a share of parameters, gradients and optimiser states.

mmengine's FSDPStrategy with checkpoints in the layout of unsharded runs, so that a run may go on with another number of
processes, sharded or not.
"""

import os
from functools import partial

import torch
from mmengine._strategy import FSDPStrategy
from mmengine.dist import all_gather_object
from mmengine.optim import BaseOptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import lambda_auto_wrap_policy

from emae_mm.checkpoints.reading import read_torch_file
from emae_mm.engine.blocks import checkpoint_activations, units
from emae_mm.engine.compilation import compile_options, compile_units
from emae_mm.engine.fitting import WITHOUT_WRAPPER, load_fitting
from emae_mm.errors import ConfigError
from emae_mm.registry import STRATEGIES

WRAPPED = "_fsdp_wrapped_module."
ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimisers whose step on a share of a parameter is that share of the step."""


@STRATEGIES.register_module(name="FSDPStrategy")
class ShardedStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy; transformer blocks and MAE's decoder are the units that are gathered one by one.

    Args:
        activation_checkpointing: as the config's key of that name, see :func:`checkpoint_activations`.
        compile: as the config's key of that name, without a target: the units are compiled.
        **kwargs: mmengine's. ``model_wrapper`` takes what torch's ``FullyShardedDataParallel`` takes, such as
            ``sharding_strategy="SHARD_GRAD_OP"``.

    Raises:
        ConfigError: (when the model is built) a model with a teacher, or an optimiser that looks at whole parameters.
    """

    def __init__(
        self,
        *,
        model_wrapper: dict | None = None,
        activation_checkpointing: bool | list[str] | None = None,
        compile: bool | dict | None = None,
        **kwargs,
    ):
        super().__init__(model_wrapper=dict(model_wrapper or {}), state_dict_cfg="full", **kwargs)
        self.recomputed, self.compiled = activation_checkpointing, compile_options(compile)

    def prepare(self, model: nn.Module | dict, *, optim_wrapper: BaseOptimWrapper | dict | None = None, **kwargs):
        """As mmengine's; the optimiser is made first, since shares of parameters have lost their shapes."""
        if self._prepared:
            return self._prepared_components()
        model = self.build_model(model)
        if hasattr(model, "update_teacher"):
            raise ConfigError(
                f"{type(model).__name__} has a teacher that follows its parameters, which FSDP shards differently",
                "leave --fsdp out; --activation-checkpointing saves memory, too",
            )
        if isinstance(optim_wrapper, dict):
            optim_wrapper = super().build_optim_wrapper(dict(optim_wrapper), model)
            if type(optim_wrapper.optimizer) not in ELEMENTWISE:
                raise ConfigError(
                    f"{type(optim_wrapper.optimizer).__name__} looks at whole parameters, and FSDP has shares of them",
                    f"use one of {sorted(kind.__name__ for kind in ELEMENTWISE)}, or leave --fsdp out",
                )
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        names = checkpoint_activations(model, self.recomputed) if self.recomputed else []
        self.logger.info(f"activations of {len(names)} modules are computed anew: {', '.join(names)}")
        found = units(model)
        if self.compiled is not None:
            compile_units(list(found.values()), self.compiled)
        gpu = torch.cuda.is_available()
        self.model_wrapper.setdefault("device_id", int(os.environ["LOCAL_RANK"]) if gpu else torch.device("cpu"))
        self.model_wrapper.setdefault(
            "auto_wrap_policy", partial(lambda_auto_wrap_policy, lambda_fn=set(found.values()).__contains__)
        )
        return super()._wrap_model(model)

    def build_optim_wrapper(self, optim_wrapper: BaseOptimWrapper, model: nn.Module) -> BaseOptimWrapper:
        """Give a wrapper made for the whole model the sharded one's parameters, and its gradient norm."""
        sharded = {name.replace(WRAPPED, ""): parameter for name, parameter in model.named_parameters()}
        for group in optim_wrapper.optimizer.param_groups:
            group["params"] = [sharded[self.id_to_name[id(parameter)]] for parameter in group["params"]]
        if optim_wrapper.clip_grad_kwargs and optim_wrapper.grad_name == "grad_norm":
            optim_wrapper.clip_func = lambda _, **limits: model.clip_grad_norm_(**limits)  # of all shares together
        self.names = [name for group in optim_wrapper.optimizer.param_groups for name in self._names_of(group, sharded)]
        accumulated = optim_wrapper._accumulative_counts
        if self.dispatch_kwargs.get("epoch_length", 0) % accumulated:
            raise ConfigError(
                f"an epoch of {self.dispatch_kwargs['epoch_length']} batches a process ends within an accumulation of "
                f"{accumulated}; FSDP cannot save the gradients of half an accumulation",
                "use a train_dataloader.batch_size so large that nothing is accumulated, or leave --fsdp out",
            )
        return optim_wrapper

    @staticmethod
    def _names_of(group: dict, sharded: dict[str, nn.Parameter]) -> list[str]:
        names = {id(parameter): name for name, parameter in sharded.items()}
        return [names[id(parameter)] for parameter in group["params"]]

    def optim_state_dict(self) -> dict:
        """The whole optimiser's state on the first process, as an unsharded one gives it; all must call this."""
        optimizer = self.optim_wrapper.optimizer
        local = optimizer.state_dict()
        index = {name: position for position, name in enumerate(self.names)}
        state: dict[int, dict[str, Tensor]] = {}
        # one kind of moment after the other: on CPUs torch gathers all kinds into the same memory
        kinds = all_gather_object({kind for values in local["state"].values() for kind in values})
        for kind in sorted(set().union(*kinds)):
            only = {name: {kind: values[kind]} for name, values in local["state"].items() if kind in values}
            gathered = FSDP.optim_state_dict(self.model, optimizer, {**local, "state": only})
            for name, values in gathered.get("state", {}).items():
                state.setdefault(index[name], {})[kind] = values[kind].clone()
        return {**self.optim_wrapper.state_dict(), "state": dict(sorted(state.items()))}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Take each process's share of an unsharded optimiser's state."""
        groups, start = [], 0
        for group in state_dict["param_groups"]:
            named = self.names[start : start + len(group["params"])]
            groups.append({**group, "params": named})
            start += len(named)
        state = {self.names[position]: values for position, values in state_dict["state"].items()}
        whole = {"state": state, "param_groups": groups}
        share = FSDP.optim_state_dict_to_load(self.model, self.optim_wrapper.optimizer, whole)
        self.optim_wrapper.load_state_dict({**state_dict, **share})

    def load_checkpoint(self, filename: str, *, strict: bool = True, revise_keys=WITHOUT_WRAPPER, callback=None, **_):
        """Load weights that must fit, and return the checkpoint.

        Raises:
            CheckpointError: unreadable, unsafe, or of another model; the first mismatches are listed.
        """
        checkpoint = read_torch_file(filename, "cpu")
        if callback is not None:
            callback(checkpoint)
        load_fitting(self.model, checkpoint, filename, strict, revise_keys)
        return checkpoint


def whole_state(model: nn.Module, part: nn.Module) -> dict[str, Tensor]:
    """The state dict of a part of a model, whole also where the model is sharded; all processes must call this.

    Args:
        model: as the runner holds it, wrapped or not.
        part: one of its modules.

    Returns:
        names below ``part``; under FSDP empty on all processes but the first.
    """
    if not isinstance(model, FSDP):
        return part.state_dict()
    name = next(name for name, module in model.module.named_modules() if module is part).replace(WRAPPED, "")
    prefix = f"{name}." if name else ""
    whole = model.state_dict()
    return {key.removeprefix(prefix): value for key, value in whole.items() if key.startswith(prefix)}
