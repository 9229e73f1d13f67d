"""BEiT's names: CAE's releases, BEiT's own, timm's ``Beit``.

Their attention has biases for queries and values only, their LayerScale is ``gamma_1`` and ``gamma_2``, and where there
are relative position biases they are tables. All but the tables is a plain ViT under other names.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from emae_mm.checkpoints.formats.base import EncoderTensors, Format, Rule, depth_of, fill_absent_biases, split_off
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.errors import CheckpointError

MARK = re.compile(r"(backbone\.|encoder\.|)blocks\.0\.(gamma_1|attn\.q_bias|attn\.relative_position_bias_table)")
SHARED_MARK = re.compile(r"(backbone\.|encoder\.|)rel_pos_bias\.relative_position_bias_table")

RULES: tuple[Rule, ...] = (
    (r"^blocks\.(\d+)\.gamma_([12])$", r"blocks.\1.ls\2.gamma"),
    (r"^blocks\.(\d+)\.attn\.relative_position_bias_table$", r"rel_pos.\1.table"),
)
"""To timm's names for a plain ViT, and to :class:`~emae_mm.models.DenseViT`'s for the tables."""

TABLE = re.compile(r"rel_pos\.\d+\.table")
CLS_ENTRIES = 3
"""Rows of a table for the class token: to patches, from patches, to itself."""
SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"


def is_beit(names: Iterable[str]) -> bool:
    """Whether names, after timm's pattern, are BEiT's."""
    return any(MARK.fullmatch(name) or SHARED_MARK.fullmatch(name) for name in names)


def join_biases(tensors: dict[str, Tensor]) -> None:
    """Put query and value biases into one bias with zeros for the keys, in place; zeros are exact."""
    for name in [name for name in tensors if name.endswith("attn.q_bias")]:
        query, value = tensors.pop(name), tensors.pop(name.replace("q_bias", "v_bias"), None)
        if value is None:
            raise CheckpointError(f"{name} has no v_bias beside it", "the file may be incomplete: copy it again")
        key = tensors.pop(name.replace("q_bias", "k_bias"), torch.zeros_like(query))
        tensors[name.replace("q_bias", "qkv.bias")] = torch.cat([query, key, value])


def settle(found: EncoderTensors) -> EncoderTensors:
    """What remains after renaming, in place: biases, absent positions, shared and all-zero tables."""
    tensors = found.tensors
    join_biases(tensors)
    fill_absent_biases(tensors)
    shared = tensors.pop(SHARED_TABLE, None)
    if shared is not None:
        tensors.update({f"rel_pos.{block}.table": shared for block in range(depth_of(tensors))})
    tables = {name: tensor for name, tensor in tensors.items() if TABLE.fullmatch(name)}
    if tables and "pos_embed" not in tensors and "cls_token" in tensors:
        tensors["pos_embed"] = _no_positions(tensors["cls_token"], next(iter(tables.values())))
    if not any(table.any() for table in tables.values()):
        for name in tables:  # a bias of zero everywhere is none
            found.beside[name] = "it is zero everywhere"
            del tensors[name]
    return found


def _no_positions(cls_token: Tensor, table: Tensor) -> Tensor:
    """Absolute positions of a model that has relative ones only: zeros, for the (square) grid of its table."""
    side = (round((len(table) - CLS_ENTRIES) ** 0.5) + 1) // 2
    return cls_token.new_zeros(1, 1 + side * side, cls_token.shape[-1])


class BeitFormat(Format):
    """CAE, BEiT and timm's ``Beit``, with or without a prefix ``encoder.`` or ``backbone.``."""

    name = "beit"

    def detect(self, checkpoint: Checkpoint) -> bool:
        return is_beit(checkpoint.tensors)

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        mark = next(name for name in checkpoint.tensors if MARK.fullmatch(name) or SHARED_MARK.fullmatch(name))
        prefix = (MARK.fullmatch(mark) or SHARED_MARK.fullmatch(mark))[1]
        found = settle(split_off(checkpoint.tensors, prefix, RULES))
        found.num_heads = checkpoint.facts.get("num_heads")
        return found
