"""Reading encoders from files, and what to say when they do not fit."""

from emae_mm.checkpoints.describe import EncoderInfo, describe_encoder
from emae_mm.checkpoints.encoder import LoadReport, export_encoder, load_encoder, load_pretraining
from emae_mm.checkpoints.reading import Checkpoint, read_checkpoint

__all__ = [
    "Checkpoint",
    "EncoderInfo",
    "LoadReport",
    "describe_encoder",
    "export_encoder",
    "load_encoder",
    "load_pretraining",
    "read_checkpoint",
]
