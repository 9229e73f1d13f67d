"""Whether a folder is laid out as a task's data: a look at names only, so that a mix-up is said at once."""

from dataclasses import dataclass
from pathlib import Path

from emae_mm.errors import DataError


@dataclass(frozen=True)
class Layout:
    """What must be below the data root, how to say so, and what the demonstration data set calls its folder of it."""

    title: str
    required: tuple[str, ...]
    expected: str
    demo_folder: str


LAYOUTS = {
    "imagenet": Layout("ImageNet", ("train", "val"), "train/CLASS/*.jpg and val/CLASS/*.jpg", "classification"),
    "coco": Layout(
        "COCO",
        (
            "annotations/instances_train2017.json",
            "annotations/instances_val2017.json",
            "train2017",
            "val2017",
        ),
        "annotations/instances_{train,val}2017.json with boxes and masks, train2017/ and val2017/",
        "coco",
    ),
    "ade20k": Layout(
        "ADE20K",
        ("images/training", "images/validation", "annotations/training", "annotations/validation"),
        "images/{training,validation}/*.jpg and annotations/{training,validation}/*.png",
        "ade20k",
    ),
}


def recognise(root: Path) -> str | None:
    """The layout whose files and folders are all there, or None."""
    return next((name for name, layout in LAYOUTS.items() if not _missing(root, layout)), None)


def check_layout(root: Path, name: str, option: str) -> None:
    """Raise DataError unless the folder has what layout ``name`` needs; ``option`` is what the user asked for."""
    layout = LAYOUTS[name]
    missing = _missing(root, layout)
    if not missing:
        return
    other = recognise(root)
    looks = f"; it looks like {LAYOUTS[other].title}'s layout" if other else ""
    raise DataError(
        f"{option} needs data in {layout.title}'s layout, but {root} has no {missing[0]}{looks}",
        f"give --data-root the folder that holds {layout.expected}",
    )


def _missing(root: Path, layout: Layout) -> list[str]:
    return [name for name in layout.required if not (root / name).exists()]
