"""Which learning rate and weight decay each parameter gets: one constructor for all three OpenMMLab libraries.

Each library has its own, bound to its own backbones and to rules hidden in name tests; here every rule is a value
of ``paramwise_cfg``. The published protocols in these terms:

- MAE pre-training: ``dict(no_decay_1d=True)`` (class and mask tokens decay);
- MAE fine-tuning: ``dict(layer_decay_rate=0.65, no_decay_1d=True, no_decay_names=["cls_token", "pos_embed"])``;
- ViTDet: ``dict(layer_decay_rate=0.7, no_decay_norms="backbone", no_decay_names=["pos_embed"])``;
- UperNet as mmsegmentation trains it: ``dict(layer_decay_rate=0.65, no_decay_1d=True)`` (positions decay);
- linear probe with LARS: ``dict(options_1d=dict(always_adapt=False))`` (see :mod:`emae_mm.engine.lars`).
"""

import logging

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from emae_mm.errors import ConfigError
from emae_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

DEFAULTS = dict(layer_decay_rate=1.0, no_decay_1d=False, no_decay_norms=False, no_decay_names=(), options_1d={})
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
BACKBONE = "backbone."
COMPILED = "_orig_mod."


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside ``torch.compile`` and (distributed) data-parallel wrappers, in any nesting."""
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Groups parameters by learning-rate scale and weight decay.

    A parameter of ``model.backbone`` in layer l of n (the backbone's ``get_layer_depth(name)``) has the learning rate
    ``lr * layer_decay_rate ** (n - 1 - l)``; one outside the backbone has ``lr``. Parameters without gradient are left
    out. Each group carries ``lr_scale`` and ``param_names``.

    Args:
        optim_wrapper_cfg: the ``optim_wrapper`` config without ``constructor`` and ``paramwise_cfg``; any wrapper type.
        paramwise_cfg: any of

            - ``layer_decay_rate`` (float in (0, 1], 1): the factor from one layer to the layer below it;
            - ``no_decay_1d`` (False, True or ``"backbone"``): no weight decay for parameters of at most one dimension
              (biases, norms, LayerScale), everywhere or in the backbone only;
            - ``no_decay_norms`` (False, True or ``"backbone"``): no weight decay for the parameters of normalisation
              layers, everywhere or in the backbone only;
            - ``no_decay_names`` (list of str): no weight decay for these parameters of the backbone, each given by its
              whole name below ``backbone.``;
            - ``options_1d`` (dict): options of the optimiser for parameters of at most one dimension.

    Raises:
        ConfigError: an unknown option, a value out of range, a name no parameter has, no parameter to train, or a
            layer decay with a backbone that cannot tell its layers.
    """

    def _validate_cfg(self) -> None:
        given = self.paramwise_cfg or {}
        unknown = set(given) - set(DEFAULTS)
        if unknown:
            raise ConfigError(f"unknown paramwise_cfg options {sorted(unknown)}", f"use some of {sorted(DEFAULTS)}")
        self.paramwise_cfg = {**DEFAULTS, **given}
        rate = self.paramwise_cfg["layer_decay_rate"]
        if not 0 < rate <= 1:
            raise ConfigError(f"paramwise_cfg.layer_decay_rate={rate!r} is not in (0, 1]", "use 1.0 for no layer decay")
        for option in ("no_decay_1d", "no_decay_norms"):
            if self.paramwise_cfg[option] not in (False, True, "backbone"):
                raise ConfigError(
                    f"paramwise_cfg.{option}={self.paramwise_cfg[option]!r} is unknown", "use False, True or 'backbone'"
                )
        if isinstance(self.paramwise_cfg["no_decay_names"], str):
            raise ConfigError("paramwise_cfg.no_decay_names is a string", "give a list of parameter names")
        for key in ("lr", "weight_decay"):
            if self.optimizer_cfg.get(key) is None:
                raise ConfigError(f"optim_wrapper.optimizer has no {key!r}", "state it: the groups scale it")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """The optimiser wrapper of a model, which may be compiled or wrapped for several processes."""
        return super().__call__(unwrap(model))

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append the parameter groups of ``module``, the whole model, to ``params``."""
        norms = {id(p) for m in module.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
        named = {name.replace(COMPILED, ""): parameter for name, parameter in module.named_parameters()}
        self._check_names(named)
        groups: dict[tuple, dict] = {}
        for name, parameter in named.items():
            if not parameter.requires_grad:
                continue
            scale = self._scale(module, name)
            decay = self.base_wd * (not self._is_exempt(name, parameter, id(parameter) in norms))
            options = dict(self.paramwise_cfg["options_1d"]) if parameter.ndim <= 1 else {}
            group = groups.setdefault(
                (scale, decay, str(options)),
                dict(params=[], param_names=[], lr=self.base_lr * scale, lr_scale=scale, weight_decay=decay, **options),
            )
            group["params"].append(parameter)
            group["param_names"].append(name)
        if not groups:
            raise ConfigError(f"{type(module).__name__} has no parameter that takes gradients", "unfreeze a part of it")
        params.extend(groups.values())
        for group in params:
            names = group["param_names"]
            print_log(
                f"{len(names)} parameters with lr x {group['lr_scale']:.4g}, weight decay {group['weight_decay']:.4g}: "
                f"{', '.join(names)}",
                logger="current",
                level=logging.DEBUG,
            )

    def _check_names(self, named: dict[str, torch.Tensor]) -> None:
        missing = [name for name in self.paramwise_cfg["no_decay_names"] if BACKBONE + name not in named]
        if missing:
            raise ConfigError(
                f"paramwise_cfg.no_decay_names: the backbone has no parameters {missing}",
                "give whole names below 'backbone.', for example 'pos_embed'",
            )

    def _is_exempt(self, name: str, parameter: torch.Tensor, is_norm: bool) -> bool:
        """Whether a parameter has no weight decay."""
        in_backbone = name.startswith(BACKBONE)

        def applies(option: str) -> bool:
            value = self.paramwise_cfg[option]
            return in_backbone if value == "backbone" else value

        return (
            (parameter.ndim <= 1 and applies("no_decay_1d"))
            or (is_norm and applies("no_decay_norms"))
            or (in_backbone and name.removeprefix(BACKBONE) in self.paramwise_cfg["no_decay_names"])
        )

    def _scale(self, model: nn.Module, name: str) -> float:
        """The factor of a parameter's learning rate."""
        rate = self.paramwise_cfg["layer_decay_rate"]
        if rate == 1.0 or not name.startswith(BACKBONE):
            return 1.0
        backbone = unwrap(model.backbone)
        if not hasattr(backbone, "get_layer_depth"):
            raise ConfigError(
                f"layer decay needs to know the layers of the backbone, and {type(backbone).__name__} cannot tell them",
                "use a backbone with get_layer_depth(name), such as emae_mm.ViTEncoder, or layer_decay_rate=1.0",
            )
        layer, num_layers = backbone.get_layer_depth(name.removeprefix(BACKBONE))
        return rate ** (num_layers - 1 - layer)
