"""Decoding a sample of the images, and checking data in folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emae_mm.data.checks.config import DatasetConfig
from emae_mm.data.checks.report import DataReport
from emae_mm.data.classes import classes_of_imagefolder
from emae_mm.data.decoding import BrokenImage, read_image
from emae_mm.data.files import IMAGE_EXTENSIONS, list_images, missing_files, require_folder
from emae_mm.data.offenders import listed, refuse
from emae_mm.errors import DataError


def draw(items: Sequence, count: int, seed: int) -> list:
    """``count`` of the items (all, if there are fewer) without repetition, in their order; the same for a seed."""
    if len(items) <= count:
        return list(items)
    chosen = np.random.default_rng(seed).choice(len(items), count, replace=False)
    return [items[index] for index in sorted(chosen)]


def decode_sample(folder: Path, names: Sequence[str], dataset: DatasetConfig, report: DataReport) -> dict:
    """Decode images; what is broken is an error or, if training skips broken images, a note.

    Returns:
        ``{name: (height, width)}`` of the whole ones.

    Raises:
        DataError: broken images that the pipeline does not tolerate, or nothing but broken images.
    """
    sizes, broken = {}, []
    for name in names:
        try:
            sizes[name] = read_image(folder / name).shape[:2]
        except BrokenImage as reason:
            broken.append(f"{folder / name}: {reason}")
    report.sampled += len(names)
    if sizes and 0 < len(broken) <= dataset.max_broken:
        report.notes.append(f"of {len(names)} sampled images some are broken and will be skipped: {listed(broken)}")
    else:
        refuse(
            f"of {len(names)} sampled images some cannot be used"
            + (f", more than max_broken={dataset.max_broken}" if 0 < dataset.max_broken < len(broken) else ""),
            broken,
            "replace or remove them; in training, LoadImage(on_broken='skip', max_broken=...) tolerates some",
        )
    return sizes


def check_imagefolder(dataset: DatasetConfig, sample: int, num_classes: int | None, seed: int) -> DataReport:
    """Folders of images, with or without labels."""
    report = DataReport("imagefolder", str(dataset.root))
    require_folder(dataset.root, "data root")
    folder = require_folder(dataset.prefix("img_path"), "folder of images")
    labelled = dataset.cfg.get("with_label", True)
    if dataset.cfg.get("ann_file"):
        names = _check_list(dataset, folder, labelled, num_classes)
        report.classes = dataset.classes or ()
    else:
        names = list_images(folder, dataset.cfg.get("extensions", IMAGE_EXTENSIONS))
        if labelled and names:
            names = _check_class_folders(dataset, folder, names, num_classes, report)
    if not names:
        raise DataError(f"{folder} holds no image", f"file names that count as images end in {list(IMAGE_EXTENSIONS)}")
    report.images = len(names)
    decode_sample(folder, draw(names, sample, seed), dataset, report)
    return report


def _check_class_folders(
    dataset: DatasetConfig, folder: Path, names: list[str], num_classes: int | None, report: DataReport
) -> list[str]:
    folders = classes_of_imagefolder(folder)
    report.classes = dataset.classes or folders
    require_count(folder, len(folders), len(report.classes), "classes are named in metainfo")
    require_count(folder, len(folders), num_classes, "classes are what the model has")
    inside = [name for name in names if "/" in name]
    if len(inside) < len(names):
        report.notes.append(f"{len(names) - len(inside)} images of {folder} are in no class folder and are not used")
    empty = sorted(set(folders) - {name.split("/", 1)[0] for name in inside})
    if empty:
        report.notes.append(f"class folders without an image: {listed(empty)}")
    return inside


def _check_list(dataset: DatasetConfig, folder: Path, labelled: bool, num_classes: int | None) -> list[str]:
    """An annotation file of ``path label`` or ``path`` lines; the paths."""
    path = dataset.path(dataset.cfg["ann_file"])
    if not path.is_file():
        raise DataError(f"the annotation file {path} does not exist", "check data_root and ann_file")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    names = lines
    if labelled:
        pairs = [line.rsplit(" ", 1) for line in lines]
        malformed = [repr(line) for line, pair in zip(lines, pairs, strict=True) if not pair[-1].isdigit()]
        refuse(f"lines of {path} are not of the form 'path label'", malformed, "write one image and its label a line")
        limit = num_classes or (len(dataset.classes) if dataset.classes else None)
        beyond = [repr(line) for line, pair in zip(lines, pairs, strict=True) if limit and int(pair[1]) >= limit]
        refuse(f"labels in {path} are outside 0..{(limit or 0) - 1}", beyond, "mend the list or set num_classes")
        names = [pair[0] for pair in pairs]
    refuse(f"images of {path} are not under {folder}", missing_files(folder, names), "check data_prefix")
    return names


def require_count(source: Path, found: int, wanted: int | None, whose: str) -> None:
    """The number of classes in the data must be the one wanted (None: any).

    Raises:
        DataError: it is another.
    """
    if wanted is not None and found != wanted:
        raise DataError(
            f"{source} has {found} classes, but {wanted} {whose}", "set num_classes to the data's, or check data_root"
        )
