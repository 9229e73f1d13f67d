"""Child registries of mmengine's roots: with them every OpenMMLab config can say ``type='emae_mm.X'``.

Importing this module registers the scope, installs the stand-in for mmcv's compiled operators (which must precede the
first import of ``mmcv.ops``) and has mmengine read checkpoints without running code from them. The components
themselves are imported when one is first looked up.
"""

from mmengine import registry as root

from emae_mm.checkpoints.schemes import install_safe_loading
from emae_mm.ops import install_fallback

install_fallback()
install_safe_loading()

SCOPE = "emae_mm"


def _child(name: str, parent: root.Registry, *locations: str) -> root.Registry:
    return root.Registry(name, parent=parent, scope=SCOPE, locations=[f"{SCOPE}.{place}" for place in locations])


MODELS = _child("model", root.MODELS, "models", "models.algorithms")
DATASETS = _child(
    "dataset", root.DATASETS,
    "data.imagefolder", "data.coco", "data.ade20k", "data.openimages", "data.shards.dataset", "engine",
)  # fmt: skip
TRANSFORMS = _child(
    "transform", root.TRANSFORMS, "data.loading", "data.crops", "data.fast_crop", "data.beit_views", "data.erasing"
)
DATA_SAMPLERS = _child("data sampler", root.DATA_SAMPLERS, "data.shards.order", "engine")
HOOKS = _child("hook", root.HOOKS, "engine", "engine.teacher")
LOG_PROCESSORS = _child("log_processor", root.LOG_PROCESSORS, "engine.log")
LOOPS = _child("loop", root.LOOPS, "engine", "engine.knn_loop", "engine.multi_scale_loop")
METRICS = _child("metric", root.METRICS, "evaluation.coco_metric")
OPTIMIZERS = _child("optimizer", root.OPTIMIZERS, "engine.lars")
OPTIM_WRAPPERS = _child("optim_wrapper", root.OPTIM_WRAPPERS, "engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    "optimizer wrapper constructor", root.OPTIM_WRAPPER_CONSTRUCTORS, "engine.layer_decay"
)
RUNNERS = _child("runner", root.RUNNERS, "engine", "engine.sharded_runner")
STRATEGIES = _child("strategy", root.STRATEGIES, "engine.fsdp")
MASKINGS = root.Registry("mask strategy", scope=SCOPE, locations=[f"{SCOPE}.models"])
