"""This project's own files."""

from collections.abc import Container
from pathlib import Path

from emae_mm.checkpoints.formats.base import (
    FC_NORM,
    FIRST,
    LAYER_SCALE,
    MAE_DECODER,
    REL_POS,
    EncoderTensors,
    Format,
    rename,
    split_off,
)
from emae_mm.checkpoints.formats.beit import is_beit
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.checkpoints.writing import write_tensors

PREFIXES = ("teacher.module.backbone.", "backbone.", "encoder.")
"""Prefixes under which training checkpoints keep the encoder; RC-MAE's teacher, which is transferred, comes first."""


class EmaeFormat(Format):
    """This project's exported encoders (flat, with ``meta``) and training checkpoints (``backbone.``)."""

    name = "emae"
    is_target = True
    holds = (LAYER_SCALE, REL_POS, FC_NORM, r"rel_pos\..*")

    def detect(self, checkpoint: Checkpoint) -> bool:
        names = checkpoint.tensors
        if any(name in names for name in MAE_DECODER) or is_beit(names):
            return False
        if FIRST in names:
            return "method" in checkpoint.meta
        return self._prefix(names) is not None and "backbone.blocks.0.attn.rel_pos_h" not in names

    @staticmethod
    def _prefix(names: Container[str]) -> str | None:
        return next((prefix for prefix in PREFIXES if f"{prefix}{FIRST}" in names), None)

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        prefix = "" if FIRST in checkpoint.tensors else self._prefix(checkpoint.tensors)
        found = split_off(checkpoint.tensors, prefix)
        found.num_heads = checkpoint.meta.get("num_heads")
        return found

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        heads = {"num_heads": encoder.num_heads} if encoder.num_heads else {}
        write_tensors(rename(encoder.tensors, str), out, lambda tensors: {"model": tensors, "meta": meta | heads})
