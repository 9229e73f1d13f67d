"""timm's flat names, which official MAE releases of encoders and fine-tuned models have, too."""

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
    to_plain,
)
from emae_mm.checkpoints.formats.beit import is_beit
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.checkpoints.writing import write_tensors


class TimmFormat(Format):
    """timm's ``VisionTransformer`` (and SAM's): a flat state dict; MAE's and DINOv2's releases of encoders, too."""

    name = "timm"
    is_target = True
    holds = (LAYER_SCALE, REL_POS, FC_NORM)

    def detect(self, checkpoint: Checkpoint) -> bool:
        names = checkpoint.tensors
        return (
            FIRST in names
            and not any(name in names for name in MAE_DECODER)
            and not is_beit(names)
            and "method" not in checkpoint.meta
        )

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        return to_plain(split_off(checkpoint.tensors), checkpoint)

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        write_tensors(rename(encoder.tensors, str), out)
