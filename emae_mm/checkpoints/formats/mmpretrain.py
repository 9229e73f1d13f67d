"""mmpretrain's names: ``VisionTransformer``, ``MAEViT`` and, with BEiT's peculiarities, ``BEiTViT`` and CAE's."""

from collections.abc import Iterable
from pathlib import Path

from emae_mm.checkpoints.formats.base import (
    FC_NORM,
    LAYER_SCALE,
    EncoderTensors,
    Format,
    Rule,
    rename,
    split_off,
    translate,
)
from emae_mm.checkpoints.formats.beit import RULES as BEIT_RULES
from emae_mm.checkpoints.formats.beit import settle
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.checkpoints.writing import write_tensors

TO_TIMM: tuple[Rule, ...] = (
    (r"^layers\.", "blocks."),
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^(blocks\.\d+)\.ln([12])\.", r"\1.norm\2."),
    (r"^ln1\.", "norm."),
    (r"^ln2\.", "fc_norm."),
    (r"\.attn\.gamma1\.weight$", ".ls1.gamma"),
    (r"\.ffn\.gamma2\.weight$", ".ls2.gamma"),
    (r"\.ffn\.layers\.0\.0\.", ".mlp.fc1."),
    (r"\.ffn\.layers\.1\.", ".mlp.fc2."),
    *BEIT_RULES,
)
FROM_TIMM: tuple[Rule, ...] = (
    (r"^blocks\.", "layers."),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^(layers\.\d+)\.norm([12])\.", r"\1.ln\2."),
    (r"^norm\.", "ln1."),
    (r"^fc_norm\.", "ln2."),
    (r"\.ls1\.gamma$", ".attn.gamma1.weight"),
    (r"\.ls2\.gamma$", ".ffn.gamma2.weight"),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)


class MmpretrainFormat(Format):
    """mmpretrain's plain ViTs: a backbone alone, or below ``backbone.`` in a model's checkpoint."""

    name = "mmpretrain"
    is_target = True
    holds = (LAYER_SCALE, FC_NORM)

    def detect(self, checkpoint: Checkpoint) -> bool:
        return self._prefix(checkpoint.tensors) is not None

    @staticmethod
    def _prefix(names: Iterable[str]) -> str | None:
        return next((prefix for prefix in ("backbone.", "") if f"{prefix}layers.0.ln1.weight" in names), None)

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        found = settle(split_off(checkpoint.tensors, self._prefix(checkpoint.tensors), TO_TIMM))
        found.num_heads = checkpoint.facts.get("num_heads")
        return found

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        tensors = rename(encoder.tensors, lambda name: translate(name, FROM_TIMM))
        write_tensors(tensors, out, lambda tensors: {"state_dict": tensors, "meta": {}})
