"""Parameters, tokens, FLOPs and memory of a model on the meta device."""

from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.runner import turn_on_activation_checkpointing
from torch import nn

from emae_mm.cost.flops import Flops, count_flops
from emae_mm.cost.memory import as_on_gpu, bytes_of, peak_of_step, states_per_parameter
from emae_mm.cost.on_meta import build_model, make_batch, training_step
from emae_mm.cost.schedule import Schedule
from emae_mm.errors import ConfigError


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; the teacher's and the head's are in ``other``."""

    encoder: int
    decoder: int
    other: int
    trainable: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.encoder + self.decoder + self.other


@dataclass(frozen=True)
class Tokens:
    """What goes through the transformers for one image, class tokens included.

    Attributes:
        parts: of an image, those of all views together.
        encoder: tokens of all parts.
        decoder: tokens of all parts; 0 without a decoder.
    """

    parts: int
    encoder: int
    decoder: int


@dataclass(frozen=True)
class FlopsPerImage:
    """FLOPs of one image; the parts of the model are forward and backward, as ``total`` is.

    Attributes:
        forward: of one forward pass.
        backward: of the backward pass without recomputation.
        recomputed: what activation checkpointing and ``parts_per_pass`` compute again.
        patch_embedding, encoder, decoder, teacher, rest: by part, without recomputation; ``rest`` are heads and losses.
    """

    forward: float
    backward: float
    recomputed: float
    patch_embedding: float
    encoder: float
    decoder: float
    teacher: float
    rest: float

    @property
    def total(self) -> float:
        """Forward, backward and recomputation."""
        return self.forward + self.backward + self.recomputed


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Attributes:
        parameters: of the whole model, in the parameters' type; buffers included.
        gradients: of the trainable ones; twice with several processes, for DDP's buckets.
        optimizer: the optimiser's states.
        activations: the most at once of everything else in a step, images included.
    """

    parameters: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """An upper bound of what tensors take at once: gradients are not all there when activations are."""
        return self.parameters + self.gradients + self.optimizer + self.activations


def autocast_dtype(cfg: Config) -> torch.dtype | None:
    """The 16-bit type a config's forward passes use, or None."""
    wrapper = cfg.get("optim_wrapper", {})
    kind = str(wrapper.get("type", "")).rpartition(".")[2]
    name = wrapper.get("dtype", {"AmpOptimWrapper": "float16", "AutocastOptimWrapper": "bfloat16"}.get(kind))
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(name)


def checkpoint_activations(cfg: Config, model: nn.Module) -> None:
    """Recompute the modules mmengine's ``activation_checkpointing`` names, as its runner would."""
    if cfg.get("activation_checkpointing"):
        try:
            turn_on_activation_checkpointing(model, cfg.activation_checkpointing)
        except AttributeError as error:
            raise ConfigError(f"activation_checkpointing: {error}", "name modules of the model") from error


def count_parameters(model: nn.Module) -> Parameters:
    """Numbers of parameters of encoder, decoder and the rest, and of those that are trained."""
    decoder = getattr(model, "decoder", None)
    parts = [0 if part is None else _size(part) for part in (model.backbone, decoder)]
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Parameters(*parts, other=_size(model) - sum(parts), trainable=trainable)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_tokens(cfg: Config, model: nn.Module) -> Tokens:
    """Tokens of one image, class tokens included."""
    if not hasattr(model, "masking"):
        return Tokens(parts=1, encoder=1 + model.backbone.num_patches, decoder=0)
    batch, _ = make_batch(cfg, 1)
    views = 2 if str(cfg.model.type).endswith("MultiViewMAE") else 1
    image = batch[0] if isinstance(batch, list) else batch
    parts = encoder = decoder = 0
    for group in model.masking.groups(model.draw(image), model.predicted_share):
        count, visible = group.ids_keep.shape[1:]
        parts += views * count
        encoder += views * count * (1 + visible)
        decoder += views * count * (1 + visible + group.ids_hidden.shape[-1])
    return Tokens(parts, encoder, decoder)


def flops_per_image(cfg: Config, model: nn.Module, batch: int) -> FlopsPerImage:
    """FLOPs of one image when ``batch`` of them share what is the same for all."""
    plain = _count_without_recomputation(cfg, model, batch)
    recomputed = 0
    if getattr(model, "parts_per_pass", None) or cfg.get("activation_checkpointing"):
        saving = build_model(cfg)
        checkpoint_activations(cfg, saving)
        recomputed = count_flops(training_step(saving, *make_batch(cfg, batch))).total - plain.total
    patches = plain.of("backbone.patch_embed")
    encoder, decoder, teacher = (plain.of(name) for name in ("backbone", "decoder", "teacher"))
    return FlopsPerImage(
        forward=plain.forward / batch,
        backward=plain.backward / batch,
        recomputed=recomputed / batch,
        patch_embedding=patches / batch,
        encoder=(encoder - patches) / batch,
        decoder=decoder / batch,
        teacher=teacher / batch,
        rest=(plain.total - encoder - decoder - teacher) / batch,
    )


def _count_without_recomputation(cfg: Config, model: nn.Module, batch: int) -> Flops:
    at_once = getattr(model, "parts_per_pass", None)
    if at_once:
        model.parts_per_pass = None
    flops = count_flops(training_step(model, *make_batch(cfg, batch)), model)
    if at_once:
        model.parts_per_pass = at_once
    model.zero_grad()
    return flops


def estimate_memory(cfg: Config, model: nn.Module, schedule: Schedule) -> Memory:
    """Memory of one process of a data-parallel training, each with a copy of model and optimiser states.

    Activations are followed through an eager step as a GPU takes it, with fused attention and the config's autocast.
    What the allocator, libraries' workspaces and a compiler add or save is not in it.
    """
    batch, samples = make_batch(cfg, schedule.batch)
    with as_on_gpu(autocast_dtype(cfg)):
        inputs = batch if isinstance(batch, list) else [batch]
        activations = peak_of_step(model, training_step(model, batch, samples), inputs)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Memory(
        parameters=bytes_of([*model.parameters(), *model.buffers()]),
        gradients=bytes_of(trainable) * (2 if schedule.processes > 1 else 1),
        optimizer=bytes_of(trainable) * states_per_parameter(cfg.optim_wrapper.optimizer),
        activations=activations,
    )
