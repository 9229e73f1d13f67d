"""What a checkpoint's encoder is, without building it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from emae_mm.checkpoints.formats import EncoderTensors, recognise
from emae_mm.checkpoints.formats.base import LAYER_SCALE, depth_of
from emae_mm.checkpoints.reading import Checkpoint, read_checkpoint
from emae_mm.errors import CheckpointError


@dataclass(frozen=True)
class EncoderInfo:
    """An encoder's shape, read off its tensors.

    Attributes:
        format: name of the checkpoint's format (``"timm"``, ``"mae"``, ``"hf"``...).
        embed_dim: width.
        depth: number of blocks.
        num_heads: attention heads where the checkpoint or the named architecture says so, else None.
        patch_size: side of a patch in pixels.
        grid: patches (down, across) that the position embeddings are stored for; None if they are of no square grid.
        arch: ``"tiny"``, ``"small"``, ``"base"``, ``"large"`` or ``"huge"`` by width and depth, else None.
        has_layer_scale: whether branches are scaled.
        meta: what this project wrote beside the encoder (method, data, epochs...), or empty.
    """

    format: str
    embed_dim: int
    depth: int
    num_heads: int | None
    patch_size: int
    grid: tuple[int, int] | None
    arch: str | None
    has_layer_scale: bool
    meta: dict = field(default_factory=dict)


def find_encoder(checkpoint: Checkpoint) -> tuple[str, EncoderTensors]:
    """The format's name and the encoder in a checkpoint.

    Raises:
        CheckpointError: no known format, or no plain ViT.
    """
    kind = recognise(checkpoint)
    return kind.name, kind.to_encoder(checkpoint)


def heads_of(found: EncoderTensors) -> int | None:
    """Attention heads as the checkpoint says, or else as the named architecture has."""
    arch = named_arch(found)
    return found.num_heads or (_architectures()[arch]["num_heads"] if arch else None)


def named_arch(found: EncoderTensors) -> str | None:
    """The standard architecture of an encoder's width and depth."""
    projection = found.tensors.get("patch_embed.proj.weight")
    width, depth = (len(projection) if projection is not None else 0), depth_of(found.tensors)
    shapes = {(spec["embed_dim"], spec["depth"]): name for name, spec in _architectures().items()}
    return shapes.get((width, depth))


def _architectures() -> dict[str, dict]:
    from emae_mm.models.vit import ARCHITECTURES

    return ARCHITECTURES


def square_grid(positions: int) -> tuple[int, int] | None:
    """The square grid of that many patch positions with a class token's beside them."""
    side = round(max(positions - 1, 0) ** 0.5)
    return (side, side) if side * side == positions - 1 else None


def describe_encoder(source: str | Path) -> EncoderInfo:
    """What a checkpoint's encoder is.

    Args:
        source: see :func:`~emae_mm.checkpoints.read_checkpoint`.

    Raises:
        CheckpointError: unreadable, unsafe, of no known format, or without a patch embedding or blocks.
    """
    checkpoint = read_checkpoint(source)
    name, found = find_encoder(checkpoint)
    tensors, depth = found.tensors, depth_of(found.tensors)
    projection, positions = tensors.get("patch_embed.proj.weight"), tensors.get("pos_embed")
    if projection is None or projection.ndim != 4 or not depth:
        raise CheckpointError(
            f"checkpoint {source} holds no encoder: no patch embedding, or no blocks", "give a ViT's checkpoint"
        )
    return EncoderInfo(
        format=name,
        embed_dim=projection.shape[0],
        depth=depth,
        num_heads=heads_of(found),
        patch_size=projection.shape[-1],
        grid=square_grid(positions.shape[1]) if positions is not None else None,
        arch=named_arch(found),
        has_layer_scale=any(re.fullmatch(LAYER_SCALE, key) for key in tensors),
        meta=checkpoint.meta if name == "emae" else {},
    )
