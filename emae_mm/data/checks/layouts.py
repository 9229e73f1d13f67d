"""The data sets in a folder whose layout is named, as the configs would name them."""

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from emae_mm.data.checks.config import DatasetConfig, plain_datasets
from emae_mm.data.files import class_folders, require_folder
from emae_mm.data.openimages import IMAGE_LIST, SUBSETS
from emae_mm.errors import DataError

Layout = dict[str, dict]
"""Split name to the config of its data set."""


def imagenet(path: str) -> Layout:
    """``{train,val}/<class>/<image>``."""
    root = require_folder(path, "data root")
    found = [split for split in ("train", "val") if (root / split).is_dir()]
    if not found:
        classes = class_folders(root)
        raise DataError(
            f"{root} is not in ImageNet's layout: it has neither train/ nor val/"
            + (f", but the folders {classes[:3]} ..." if classes else ""),
            "expected are {train,val}/<class>/<image>; images without labels are checked as 'folder'",
        )
    return {split: dict(type="ImageFolder", data_root=str(root), data_prefix=split) for split in found}


def coco(path: str) -> Layout:
    """``annotations/instances_<split>.json`` with ``<split>/``."""
    root = require_folder(path, "data root")
    found = sorted(file.stem.removeprefix("instances_") for file in root.glob("annotations/instances_*.json"))
    if not found:
        raise DataError(
            f"{root} is not in COCO's layout: it has no annotations/instances_*.json",
            "expected are annotations/instances_train2017.json and train2017/; images alone are checked as 'folder'",
        )
    return {
        split: dict(
            type="CocoFormatDataset",
            data_root=str(root),
            ann_file=f"annotations/instances_{split}.json",
            data_prefix=dict(img=split),
        )
        for split in found
    }


def ade20k(path: str) -> Layout:
    """``images/{training,validation}/`` with ``annotations/{training,validation}/``."""
    root = require_folder(path, "data root")
    found = [split for split in ("training", "validation") if (root / "images" / split).is_dir()]
    if not found:
        raise DataError(
            f"{root} is not in ADE20K's layout: it has neither images/training/ nor images/validation/",
            "give the folder ADEChallengeData2016, or one like it",
        )
    return {
        split: dict(
            type="ADE20KFormatDataset",
            data_root=str(root),
            data_prefix=dict(img_path=f"images/{split}", seg_map_path=f"annotations/{split}"),
        )
        for split in found
    }


def openimages(path: str) -> Layout:
    """CSV lists of images beside ``train/`` (or ``train_0/`` to ``train_f/``), ``validation/`` and ``test/``.

    Of several lists of one subset, the usual one counts, else the first by name.
    """
    root = require_folder(path, "data root")
    lists = [file.name for file in sorted(root.glob("*.csv")) if _lists_images(file)]
    if not lists:
        raise DataError(
            f"{root} is not in OpenImages' layout: no CSV file in it lists images (a column ImageID, no LabelName)",
            f"put {IMAGE_LIST} beside train/ or train_0/ ... train_f/",
        )
    found = {}
    for subset in SUBSETS:
        named = sorted((name for name in lists if subset in name), key=lambda name: (name != IMAGE_LIST, name))
        if named:
            found[subset] = dict(type="OpenImages", data_root=str(root), ann_file=named[0], subset=subset)
    return found or {"all": dict(type="OpenImages", data_root=str(root), ann_file=lists[0], subset="")}


def _lists_images(file: Path) -> bool:
    with open(file, newline="", encoding="utf-8-sig", errors="replace") as stream:
        header = next(csv.reader(stream), [])
    return "ImageID" in header and "LabelName" not in header


def folder(path: str) -> Layout:
    """Any tree of images."""
    root = require_folder(path, "folder of images")
    return {"images": dict(type="ImageFolder", data_root=str(root), with_label=False)}


def shards(path: str) -> Layout:
    """A folder of ``*.tar``, or a pattern."""
    if Path(path).is_dir():
        return {"shards": dict(type="TarShards", data_root=path)}
    return {"shards": dict(type="TarShards", shards=path)}


LAYOUTS: dict[str, Callable[[str], Layout]] = {
    layout.__name__: layout for layout in (imagenet, coco, ade20k, openimages, folder, shards)
}


EXPECTED = {
    "imagenet": ("ImageNet", "train/<class>/<image> and val/<class>/<image>"),
    "coco": ("COCO", "annotations/instances_{train,val}2017.json, train2017/ and val2017/"),
    "ade20k": ("ADE20K", "images/{training,validation}/ and annotations/{training,validation}/"),
}


def recognise(root: Path) -> str | None:
    """Which of :data:`EXPECTED` a folder looks like, from names alone; None: none of them."""
    if any(root.glob("annotations/instances_*.json")):
        return "coco"
    if any((root / "images" / split).is_dir() for split in ("training", "validation")):
        return "ade20k"
    if any((root / split).is_dir() and class_folders(root / split) for split in ("train", "val")):
        return "imagenet"
    return None


def check_layouts(cfg: Mapping[str, Any]) -> None:
    """Whether the data of a config's loaders are laid out as its data sets read them.

    Raises:
        DataError: they are laid out as those of another task, or lie a folder deeper; the message says what was found
            and what is expected. What is missing otherwise is left to the checks of the data.
    """
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader") or {}
        for dataset in plain_datasets(loader["dataset"]) if "dataset" in loader else ():
            wanted = _layout_of(dataset)
            if wanted and dataset.root.is_dir() and not _is_there(dataset):
                _require_layout(dataset.root, wanted)


def _layout_of(dataset: DatasetConfig) -> str | None:
    """The key of :data:`EXPECTED` that a data set reads; images in other folders than ImageNet's have none."""
    if dataset.kind == "imagefolder":
        return "imagenet" if dataset.prefix("img_path").name in ("train", "val") else None
    return dataset.kind if dataset.kind in EXPECTED else None


def _is_there(dataset: DatasetConfig) -> bool:
    folder = dataset.prefix("img") if dataset.kind == "coco" else dataset.prefix("img_path")
    listed = dataset.cfg.get("ann_file")
    return folder.is_dir() or (bool(listed) and dataset.path(listed).is_file())


def _require_layout(root: Path, wanted: str) -> None:
    title, expected = EXPECTED[wanted]
    deeper = next((path for path in sorted(root.iterdir()) if path.is_dir() and recognise(path) == wanted), None)
    found = recognise(root)
    if deeper is not None:
        raise DataError(
            f"{root} does not hold {title}'s folders itself, but {deeper.name}/ in it does", f"give {deeper}"
        )
    if found not in (None, wanted):
        other, theirs = EXPECTED[found]
        raise DataError(
            f"{root} is laid out as {other} ({theirs}), but this config reads {title}'s layout",
            f"give --data-root a folder with {expected}, or take a config for {other}",
        )
