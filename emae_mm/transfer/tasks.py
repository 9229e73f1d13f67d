"""Which protocol a task has for which encoder: the one place where tasks are mapped to configs."""

from dataclasses import dataclass, field
from pathlib import Path

from emae_mm.errors import ConfigError
from emae_mm.paths import find_config

SMALL, BASE, LARGE = "ViT-S/16", "ViT-B/16", "ViT-L/16"
DEMO_ARCH, TINY_ARCH = "ViT-128x4/8", "ViT-128x6/8"
"""The encoders of the embedded demonstration and of the suite on small real images."""


@dataclass(frozen=True)
class Task:
    """One kind of transfer.

    Attributes:
        name: what the command line calls it.
        record_task: what records and the leaderboard call it.
        layout: the data's layout, a key of :data:`~emae_mm.transfer.layouts.LAYOUTS`.
        protocols: encoder's name to the full-size config below ``configs/``.
        small: encoder's name to the small variant.
        quick_batch: images each process takes at a step of a quick run at full size.
    """

    name: str
    record_task: str
    layout: str
    protocols: dict[str, str]
    small: dict[str, str] = field(default_factory=dict)
    quick_batch: int = 4


@dataclass(frozen=True)
class Choice:
    """What will be run.

    Attributes:
        config: the file.
        shorten: a quick run of a full-size config is meant.
        small: the config is a small variant, for data of any name.
    """

    config: Path
    shorten: bool = False
    small: bool = False


_TASKS = (
    Task(
        "knn",
        "imagenet-knn",
        "imagenet",
        {
            SMALL: "classification/knn_vit-small-p16_in1k.py",
            BASE: "classification/knn_vit-base-p16_in1k.py",
            LARGE: "classification/knn_vit-large-p16_in1k.py",
        },
        {
            DEMO_ARCH: "classification/demo/knn_vit-demo_demo.py",
            TINY_ARCH: "classification/tiny/knn_vit-tiny64_folder.py",
        },
    ),
    Task(
        "linear",
        "imagenet-linear",
        "imagenet",
        {
            SMALL: "classification/linear_vit-small-p16_8xb2048-90e_in1k.py",
            BASE: "classification/linear_vit-base-p16_8xb2048-90e_in1k.py",
            LARGE: "classification/linear_vit-large-p16_8xb2048-50e_in1k.py",
        },
        {
            DEMO_ARCH: "classification/demo/linear_vit-demo_demo.py",
            TINY_ARCH: "classification/tiny/linear_vit-tiny64_folder.py",
        },
    ),
    Task(
        "finetune",
        "imagenet-finetune",
        "imagenet",
        {
            SMALL: "classification/finetune-rc-mae_vit-small-p16_8xb128-300e_in1k.py",  # as RC-MAE's released script
            BASE: "classification/finetune_vit-base-p16_8xb128-100e_in1k.py",
            LARGE: "classification/finetune_vit-large-p16_8xb128-50e_in1k.py",
        },
        {
            DEMO_ARCH: "classification/demo/finetune_vit-demo_demo.py",
            TINY_ARCH: "classification/tiny/finetune_vit-tiny64_folder.py",
        },
    ),
    Task(
        "maskrcnn",
        "coco-maskrcnn-fpn",
        "coco",
        {
            BASE: "detection/mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py",
            LARGE: "detection/mask-rcnn_vit-large-fpn_8xb8-lsj-100e_coco.py",
        },
        {
            DEMO_ARCH: "detection/demo/mask-rcnn_vit-demo_demo.py",
            TINY_ARCH: "detection/tiny/mask-rcnn_vit-tiny64_coco.py",
        },
        quick_batch=1,
    ),
    Task(
        "vitdet",
        "coco-vitdet",
        "coco",
        {
            BASE: "detection/vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco.py",
            LARGE: "detection/vitdet_mask-rcnn_vit-large_8xb8-lsj-100e_coco.py",
        },
        {
            DEMO_ARCH: "detection/demo/vitdet_mask-rcnn_vit-demo_demo.py",
            TINY_ARCH: "detection/tiny/vitdet_mask-rcnn_vit-tiny64_coco.py",
        },
        quick_batch=1,
    ),
    Task(
        "vitdet-cascade",
        "coco-vitdet-cascade",
        "coco",
        {
            BASE: "detection/vitdet_cascade-mask-rcnn_vit-base_8xb8-lsj-100e_coco.py",
            LARGE: "detection/vitdet_cascade-mask-rcnn_vit-large_8xb8-lsj-100e_coco.py",
        },
        {
            DEMO_ARCH: "detection/demo/vitdet_cascade-mask-rcnn_vit-demo_demo.py",
            TINY_ARCH: "detection/tiny/vitdet_cascade-mask-rcnn_vit-tiny64_coco.py",
        },
        quick_batch=1,
    ),
    Task(
        "upernet",
        "ade20k-upernet",
        "ade20k",
        {
            BASE: "segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512.py",
            LARGE: "segmentation/upernet_vit-large_8xb2-160k_ade20k-512x512.py",
        },
        {
            DEMO_ARCH: "segmentation/demo/upernet_vit-demo_demo.py",
            TINY_ARCH: "segmentation/tiny/upernet_vit-tiny64_ade20k.py",
        },
        quick_batch=2,  # batch norm over maps pooled to 1x1 needs two images
    ),
    Task(
        "upernet-cae",
        "ade20k-upernet-cae",
        "ade20k",
        {
            BASE: "segmentation/upernet-cae_vit-base_8xb2-160k_ade20k-512x512.py",
            LARGE: "segmentation/upernet-cae_vit-large_8xb2-160k_ade20k-512x512.py",
        },
        {
            DEMO_ARCH: "segmentation/demo/upernet-cae_vit-demo_demo.py",
            TINY_ARCH: "segmentation/tiny/upernet-cae_vit-tiny64_ade20k.py",
        },
        quick_batch=2,
    ),
)
TASKS: dict[str, Task] = {task.name: task for task in _TASKS}
"""Every task of ``emae-mm transfer``."""


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ConfigError: there is none; lists those there are.
    """
    if name not in TASKS:
        raise ConfigError(f"--task {name} is unknown", f"the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def choose(
    task: Task, arch: str, *, quick: bool = False, config: str | Path | None = None, resampled: bool = False
) -> Choice:
    """The config for an encoder.

    Args:
        task: from :func:`find_task`.
        arch: the encoder's name, as records have it: ``ViT-B/16``, or ``ViT-128x4/8`` for no standard size.
        quick: the small variant where the encoder has one, else a few steps of the full-size protocol.
        config: a config chosen by the user in place of the declared ones.
        resampled: the patch embedding will be resampled, so that only width and depth count.

    Raises:
        ConfigError: no protocol for this encoder; lists which there are.
    """
    if config is not None:
        return Choice(find_config(config), shorten=quick)
    if resampled:
        arch = _same_blocks(task, arch) or arch
    if quick and arch in task.small:
        return Choice(find_config(task.small[arch]), small=True)
    if arch in task.protocols:
        return Choice(find_config(task.protocols[arch]), shorten=quick)
    raise _no_protocol(task, arch)


def _same_blocks(task: Task, arch: str) -> str | None:
    """The encoder with a config that differs in nothing but its patch size."""
    return next((name for name in (*task.protocols, *task.small) if name.split("/")[0] == arch.split("/")[0]), None)


def _no_protocol(task: Task, arch: str) -> ConfigError:
    published, own = ", ".join(task.protocols), "choose a config for it with --config FILE"
    if arch in task.small:
        return ConfigError(
            f"no protocol of --task {task.name} is published for {arch}; there is one for {published}",
            f"add --quick for the small variant for {arch}, or {own}",
        )
    small = f", and with --quick for {', '.join(task.small)}" if task.small else ""
    other = _same_blocks(task, arch)
    return ConfigError(
        f"--task {task.name} has no protocol for {arch}; it has for {published}{small}",
        (f"add --resample-patch-embed to make it {other}, or {own}" if other else own),
    )
