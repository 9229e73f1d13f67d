"""The transformer blocks of a model: what is recomputed, sharded or compiled one by one."""

from functools import partial

from timm.models.vision_transformer import Block
from torch import nn
from torch.utils.checkpoint import checkpoint

from emae_mm.errors import ConfigError
from emae_mm.models.decoder import MAEDecoder


def units(model: nn.Module) -> dict[str, nn.Module]:
    """What a model is cut into, by name: its transformer blocks, and MAE's decoder as a whole.

    The decoder computes its first and its last block by parts, not by calling them, so that nothing may hang on calls
    of its single blocks.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        within = any(isinstance(outer, MAEDecoder) and name.startswith(f"{unit}.") for unit, outer in found.items())
        if isinstance(module, (Block, MAEDecoder)) and not within:
            found[name] = module
    return found


def checkpoint_activations(model: nn.Module, which: bool | list[str]) -> list[str]:
    """Keep only the inputs of modules and compute their activations anew in the backward pass, in place.

    Values and gradients stay the same, dropout included. Frozen modules (a teacher, say) keep no activations anyway.

    Args:
        model: not wrapped, not compiled.
        which: True: every unit with something to train, see :func:`units`; or the names of modules, as in mmengine.

    Returns:
        the names of the modules.

    Raises:
        ConfigError: the model has no transformer block to train, or no module of a given name.
    """
    if which is True:
        names = [name for name, unit in units(model).items() if any(p.requires_grad for p in unit.parameters())]
        if not names:
            raise ConfigError(
                f"activation_checkpointing: {type(model).__name__} has no transformer block to train",
                "give the names of its modules, activation_checkpointing=['backbone.layer1', ...], or leave it out",
            )
    else:
        names = [which] if isinstance(which, str) else list(which or ())
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise ConfigError(
                f"activation_checkpointing: {type(model).__name__} has no module {name!r}",
                "give names that model.named_modules() has, or True for all transformer blocks",
            )
        module = modules[name]
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    return names
