"""Hooks: keeping checkpoints, watching a run, stopping on a loss that is not finite."""

from emae_mm.engine.hooks.checkpoints import ExportEncoderHook, PruningCheckpointHook, checkpoints_in
from emae_mm.engine.hooks.finite import NonFiniteLossHook
from emae_mm.engine.hooks.knn_probe import KNNProbeHook
from emae_mm.engine.hooks.meters import GradientNormHook, ThroughputHook
from emae_mm.engine.hooks.panel import ReconstructionPanelHook
from emae_mm.engine.hooks.pictures import PicturesHook
from emae_mm.engine.hooks.progress import ProgressHook

__all__ = [
    "ExportEncoderHook",
    "GradientNormHook",
    "KNNProbeHook",
    "NonFiniteLossHook",
    "PicturesHook",
    "ProgressHook",
    "PruningCheckpointHook",
    "ReconstructionPanelHook",
    "ThroughputHook",
    "checkpoints_in",
]
