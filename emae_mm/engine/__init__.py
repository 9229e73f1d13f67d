"""What runs a config: mmengine's Runner with exact resumption, hooks, optimisation, loops and precision."""

from emae_mm.engine import knn_loop, lars, layer_decay, log  # noqa: F401  registered by import
from emae_mm.engine.ema import FollowStudentHook
from emae_mm.engine.hooks import (
    ExportEncoderHook,
    GradientNormHook,
    KNNProbeHook,
    NonFiniteLossHook,
    PruningCheckpointHook,
    ReconstructionPanelHook,
    ThroughputHook,
)
from emae_mm.engine.precision import AutocastOptimWrapper
from emae_mm.engine.record_hook import RecordHook
from emae_mm.engine.runner import BenchmarkRunner
from emae_mm.engine.seeding import SeededDataset, SeededSampler

__all__ = [
    "AutocastOptimWrapper",
    "BenchmarkRunner",
    "ExportEncoderHook",
    "FollowStudentHook",
    "GradientNormHook",
    "KNNProbeHook",
    "NonFiniteLossHook",
    "PruningCheckpointHook",
    "ReconstructionPanelHook",
    "RecordHook",
    "SeededDataset",
    "SeededSampler",
    "ThroughputHook",
]
