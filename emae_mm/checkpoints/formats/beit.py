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

MARK = re.compile(r"(backbone\.|encoder\.|)blocks\.0\.(gamma_1|attn\.q_bias|attn\.relative_position_bias_table)")
SHARED_MARK = re.compile(r"(backbone\.|encoder\.|)rel_pos_bias\.relative_position_bias_table")

RULES: tuple[Rule, ...] = (
    (r"^blocks\.(\d+)\.gamma_([12])$", r"blocks.\1.ls\2.gamma"),
    (r"^blocks\.(\d+)\.attn\.relative_position_bias_table$", r"rel_pos.\1.table"),
)
"""To timm's names for a plain ViT, and to :class:`~emae_mm.models.DenseViT`'s for the tables."""

SHARED_TABLE = "rel_pos_bias.relative_position_bias_table"


def is_beit(names: Iterable[str]) -> bool:
    """Whether names, after timm's pattern, are BEiT's."""
    return any(MARK.fullmatch(name) or SHARED_MARK.fullmatch(name) for name in names)


def join_biases(tensors: dict[str, Tensor]) -> None:
    """Put query and value biases into one bias with zeros for the keys, in place; zeros are exact."""
    for name in [name for name in tensors if name.endswith("attn.q_bias")]:
        query, value = tensors.pop(name), tensors.pop(name.replace("q_bias", "v_bias"))
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
    tables = [name for name in tensors if re.fullmatch(r"rel_pos\.\d+\.table", name)]
    if tables and not any(tensors[name].any() for name in tables):
        for name in tables:  # a bias of zero everywhere is none
            found.beside[name] = "it is zero everywhere"
            del tensors[name]
    if "pos_embed" not in tensors and "cls_token" in tensors and tables:
        # all of BEiT's knowledge of places is in the tables; the absolute embedding it does not have is zero
        side = (max(tensors[tables[0]].shape[0] - 3, 1) ** 0.5 + 1) / 2 if tables[0] in tensors else 1
        patches = round(side) ** 2
        tensors["pos_embed"] = tensors["cls_token"].new_zeros(1, 1 + patches, tensors["cls_token"].shape[-1])
    return found


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
