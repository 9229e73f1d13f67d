"""Reading encoders from files, and what to say when they do not fit."""

from emae_mm.checkpoints.describe import EncoderInfo, describe_encoder
from emae_mm.checkpoints.encoder import load_encoder
from emae_mm.checkpoints.pretraining import export_encoder, load_pretraining
from emae_mm.checkpoints.reading import Checkpoint, read_checkpoint, weights_file
from emae_mm.checkpoints.report import LoadReport

__all__ = [
    "Checkpoint",
    "EncoderInfo",
    "LoadReport",
    "describe_encoder",
    "export_encoder",
    "load_encoder",
    "load_pretraining",
    "read_checkpoint",
    "weights_file",
]
