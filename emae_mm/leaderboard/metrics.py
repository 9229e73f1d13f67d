"""Names, units and directions of the metrics and tasks that the tables know."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is called in a table, its unit, which direction is better and how many decimals it is given."""

    label: str
    unit: str = "%"
    higher_is_better: bool = True
    decimals: int = 1
    is_accuracy: bool = False


METRICS = {
    "top1": MetricInfo("top-1", is_accuracy=True),
    "top5": MetricInfo("top-5", is_accuracy=True),
    "accuracy": MetricInfo("accuracy", is_accuracy=True),
    "box_AP": MetricInfo("box AP"),
    "mask_AP": MetricInfo("mask AP"),
    "box_AP50": MetricInfo("box AP50"),
    "mask_AP50": MetricInfo("mask AP50"),
    "box_AP75": MetricInfo("box AP75"),
    "mask_AP75": MetricInfo("mask AP75"),
    "mIoU": MetricInfo("mIoU"),
    "SSIM": MetricInfo("SSIM", unit="", decimals=3),
    "LPIPS": MetricInfo("LPIPS", unit="", higher_is_better=False, decimals=3),
    "FID": MetricInfo("FID", unit="", higher_is_better=False),
    "prediction_variance": MetricInfo("prediction variance", unit="", decimals=4),
    "hours": MetricInfo("time", unit="h", higher_is_better=False, decimals=2),
    "speed_up": MetricInfo("speed-up", unit="x", decimals=2),
    "relative_iterations": MetricInfo("iterations", unit="relative", higher_is_better=False, decimals=3),
    "relative_FLOPs_per_iteration": MetricInfo("FLOPs/iteration", "relative", higher_is_better=False),
}
"""Known metrics; where a table has several, the first one here ranks (unless a record names another as primary)."""

TASK_TITLES = {
    "imagenet-linear": "Classification: linear probe",
    "imagenet-finetune": "Classification: fine-tuning",
    "imagenet-knn": "Classification: k-NN",
    "coco-maskrcnn-fpn": "Detection: Mask R-CNN + FPN",
    "coco-vitdet": "Detection: ViTDet Mask R-CNN",
    "coco-vitdet-cascade": "Detection: ViTDet Cascade Mask R-CNN",
    "ade20k-upernet": "Segmentation: UperNet, MAE settings",
    "ade20k-upernet-cae": "Segmentation: UperNet, CAE settings",
    "reconstruction": "Reconstruction",
    "pretrain": "Pre-training",
    "pretraining-cost": "Pre-training cost",
    "data-augmentor": "Reconstructions as data augmentation",
    "ablation": "Ablations",
}
"""Every task that a record or a published row may have, in the order of the tables."""


def info(name: str) -> MetricInfo:
    """What is known of a metric; an unknown one is shown under its own name."""
    return METRICS.get(name) or MetricInfo(name, unit="", decimals=3)


def in_order(names: set[str]) -> list[str]:
    """Known metrics first, in their order; then the others by name."""
    known = list(METRICS)
    return sorted(names, key=lambda name: (known.index(name) if name in METRICS else len(known), name))
