"""The official MAE release's pre-training checkpoints."""

from pathlib import Path

from emae_mm.checkpoints.formats.base import FC_NORM, MAE_DECODER, EncoderTensors, Format, rename, split_off, to_plain
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.checkpoints.writing import write_tensors


class MaeFormat(Format):
    """The official MAE release: flat names under ``model``, with the decoder where the file is of pre-training.

    Encoders alone and fine-tuned models have timm's names and nothing else to tell them by; they go as timm's.
    """

    name = "mae"
    is_target = True
    holds = (FC_NORM,)

    def detect(self, checkpoint: Checkpoint) -> bool:
        return any(name in checkpoint.tensors for name in MAE_DECODER)

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        return to_plain(split_off(checkpoint.tensors), checkpoint)

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        write_tensors(rename(encoder.tensors, str), out, wrap=lambda tensors: {"model": tensors})
