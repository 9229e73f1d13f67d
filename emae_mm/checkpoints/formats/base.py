"""What a checkpoint format is, and the names that all formats are translated to."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from emae_mm.checkpoints.reading import Checkpoint

BESIDE = {
    r"(decoder|decoder_\w+)\..*|decoder_pos_embed|mask_token": "only pre-training uses it",
    r"(head|head_dist|classifier|lm_head|bbox_head|mask_head|decode_head|auxiliary_head|roi_heads?"
    r"|proposal_generator|rpn_head|neck|simfp_\d+|fpn_\w+|pooler)\..*": "it belongs to a task's head",
    r"(data_preprocessor|pixel_mean|pixel_std|target_generator|teacher|student|momentum_encoder)(\..*)?":
        "it is no part of the encoder",
    r"(.*\.)?(relative_position_index|relative_coords_table)": "it is computed, not learned",
}  # fmt: skip
"""Patterns of names, prefix removed, that stand in checkpoints beside the encoder, and why they are not needed."""

REASONS = {
    r".*relative_position_bias_table|rel_pos\..*|.*\.rel_pos_[hw]": "relative positions take part in attention; "
    "this encoder has no place for them",
    r".*\.ls[12]\.gamma": "LayerScale scales each branch; this encoder has none",
    r"reg_token|register_tokens": "register tokens take part in attention; a plain ViT has no place for them",
    r"dist_token": "a distillation token takes part in attention; a plain ViT has no place for it",
    r".*\.mlp\.(w12|w1|w2|w3|weights_in|weights_out|fc1_g|fc1_x)\..*": "a SwiGLU MLP (as DINOv2's giant) is no MLP of "
    "a plain ViT",
    r".*\.attn\.[qk]_norm\..*": "normalised queries and keys are no plain attention",
    r"norm_pre\..*": "a norm before the blocks (as CLIP's) has no place in this encoder",
    r"norm\..*": "this encoder ends without a final norm",
    r"fc_norm\..*": "it normalises the mean of the patches (pool='avg'); this encoder has no such norm",
    r"cls_token": "this encoder has no class token",
}
"""Patterns of timm-like names of encoder tensors, and why an encoder may be unable to hold them."""

BLOCK_NAMES = tuple(
    f"{part}.{kind}"
    for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for kind in ("weight", "bias")
)
"""What every block of a plain ViT has."""

FIRST = "patch_embed.proj.weight"
LAYER_SCALE = r"blocks\.\d+\.ls[12]\.gamma"
REL_POS = r"blocks\.\d+\.attn\.rel_pos_[hw]"
FC_NORM = r"fc_norm\..*"
MAE_DECODER = ("decoder_embed.weight", "decoder_pos_embed", "decoder_norm.weight")

Rule = tuple[str, str]


@dataclass
class EncoderTensors:
    """An encoder as it was found in a checkpoint.

    Attributes:
        tensors: encoder tensors under timm's names (``blocks.0.attn.qkv.weight``...), those that a plain ViT cannot
            hold included; decomposed relative positions are ``blocks.{i}.attn.rel_pos_h`` and ``rel_pos_w``, tables
            of BEiT's kind ``rel_pos.{i}.table``.
        beside: names in the file that are no part of the encoder, and why they are not needed.
        num_heads: attention heads where the checkpoint says so; the tensors alone do not.
    """

    tensors: dict[str, Tensor]
    beside: dict[str, str] = field(default_factory=dict)
    num_heads: int | None = None


class Format:
    """One layout of checkpoints: subclass it in a module of its own beside this one, and it is known.

    Attributes:
        name: what messages and ``--to`` call it.
        is_target: whether :meth:`write` is there.
        holds: patterns of names that it can hold beside those of a plain ViT.
        optional: patterns of a plain ViT's names that its models do without.
    """

    name = ""
    is_target = False
    holds: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    def detect(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of this format, judged by its names; no two formats may claim the same one."""
        raise NotImplementedError

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        """The encoder under timm's names.

        Raises:
            CheckpointError: an architecture that is no plain ViT at all.
        """
        raise NotImplementedError

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        """Write an encoder whose completeness has been checked, atomically.

        Raises:
            CheckpointError: the format cannot hold it.
        """
        raise NotImplementedError


def first_match(patterns: Mapping[str, str], name: str) -> str | None:
    """The value of the first pattern that matches the whole name."""
    return next((value for pattern, value in patterns.items() if re.fullmatch(pattern, name)), None)


def translate(name: str, rules: Iterable[Rule]) -> str:
    """Apply every (pattern, replacement) in turn to a name."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def split_off(tensors: Mapping[str, Tensor], prefix: str = "", rules: Iterable[Rule] = ()) -> EncoderTensors:
    """Take the names below a prefix, translated, as the encoder's; those of :data:`BESIDE` and all others lie beside.

    Args:
        tensors: of the checkpoint.
        prefix: e.g. ``"backbone."``.
        rules: see :func:`translate`; applied to the names below the prefix.
    """
    found = EncoderTensors({})
    rules = tuple(rules)
    for name, tensor in tensors.items():
        own = translate(name.removeprefix(prefix), rules)
        if not name.startswith(prefix):
            found.beside[name] = first_match(BESIDE, name) or "it is no part of the encoder"
        elif reason := first_match(BESIDE, own):
            found.beside[name] = reason
        else:
            found.tensors[own] = tensor
    return found


def fill_absent_biases(tensors: dict[str, Tensor]) -> None:
    """Zeros for the biases of queries, keys and values where a model has none: the same function, in place."""
    for name in [name for name in tensors if name.endswith("attn.qkv.weight")]:
        bias = f"{name.removesuffix('weight')}bias"
        if bias not in tensors:
            tensors[bias] = tensors[name].new_zeros(len(tensors[name]))


def with_class_position(positions: Tensor) -> Tensor:
    """Positions (1, N, D) or (1, H, W, D) of patches alone with a zero in front for the class token: (1, 1+N, D)."""
    flat = positions.flatten(1, -2)
    return torch.cat([flat.new_zeros(1, 1, flat.shape[-1]), flat], dim=1)


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def depth_of(tensors: Mapping[str, Tensor]) -> int:
    """Number of blocks."""
    blocks = [int(name.split(".")[1]) for name in tensors if re.match(r"blocks\.\d+\.", name)]
    return max(blocks, default=-1) + 1


def rename(tensors: Mapping[str, Tensor], how: Callable[[str], str]) -> dict[str, Tensor]:
    """Independent copies on the CPU under new names."""
    return {how(name): tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def to_plain(found: EncoderTensors, checkpoint: Checkpoint) -> EncoderTensors:
    """Bring what timm's ViTs may do otherwise, and mean the same, into our form, in place.

    Positions of patches alone (SAM's as a map, timm's ``no_embed_class``) get the class token's, zero; a number of
    positions that is a square has none for a class token.
    """
    fill_absent_biases(found.tensors)
    positions = found.tensors.get("pos_embed")
    if positions is not None and (positions.ndim == 4 or (positions.ndim == 3 and _is_square(positions.shape[1]))):
        found.tensors["pos_embed"] = with_class_position(positions)
    found.num_heads = checkpoint.facts.get("num_heads")
    return found
