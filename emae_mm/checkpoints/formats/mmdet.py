"""mmdet's ViTDet project: the backbone below ``backbone.``, under detectron2's names."""

from emae_mm.checkpoints.formats.base import EncoderTensors, Format, split_off, to_plain
from emae_mm.checkpoints.reading import Checkpoint

PREFIX = "backbone."


class MmdetFormat(Format):
    """ViTDet as mmdet trains it; detectors this project trained with decomposed positions have the same names."""

    name = "mmdet"

    def detect(self, checkpoint: Checkpoint) -> bool:
        return f"{PREFIX}blocks.0.attn.rel_pos_h" in checkpoint.tensors

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        return to_plain(split_off(checkpoint.tensors, PREFIX), checkpoint)
