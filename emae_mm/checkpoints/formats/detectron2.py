"""detectron2's ViTDet: a pickle of arrays, or a torch file, with the backbone below ``backbone.net.``."""

import pickle
from pathlib import Path

import torch

from emae_mm.checkpoints.formats.base import FC_NORM, REL_POS, EncoderTensors, Format, rename, split_off, to_plain
from emae_mm.checkpoints.reading import Checkpoint
from emae_mm.checkpoints.writing import write_tensors
from emae_mm.fileio import write_atomically

PREFIX = "backbone.net."


class Detectron2Format(Format):
    """ViTDet of detectron2.

    What is written also holds ``cls_token`` and ``norm``, which ViTDet's backbone does not have; detectron2's loader
    lists them as not used, and nothing is lost on the way back.
    """

    name = "detectron2"
    is_target = True
    holds = (REL_POS, FC_NORM)
    optional = ("cls_token", r"norm\..*")

    def detect(self, checkpoint: Checkpoint) -> bool:
        return f"{PREFIX}patch_embed.proj.weight" in checkpoint.tensors

    def to_encoder(self, checkpoint: Checkpoint) -> EncoderTensors:
        return to_plain(split_off(checkpoint.tensors, PREFIX), checkpoint)

    def write(self, encoder: EncoderTensors, meta: dict, out: Path) -> None:
        tensors = rename(encoder.tensors, lambda name: PREFIX + name)
        if out.suffix != ".pkl":
            write_tensors(tensors, out, lambda tensors: {"model": tensors})
            return
        # with "__author__" detectron2 takes the file for one of its own, and the names as they are
        # numpy has no bfloat16, whose values float32 holds exactly
        arrays = {n: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for n, t in tensors.items()}
        content = {"model": arrays, "__author__": "emae_mm"}
        write_atomically(out, lambda file: pickle.dump(content, file, protocol=4))
