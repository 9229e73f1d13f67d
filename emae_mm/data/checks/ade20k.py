"""Checking ADE20K-format segmentation data: all names, and a sample of images with their label maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from emae_mm.data.checks.config import DatasetConfig, type_name
from emae_mm.data.checks.images import require_count
from emae_mm.data.checks.inspection import Inspection, decode, present
from emae_mm.data.checks.report import DataReport
from emae_mm.data.classes import metainfo_of_ade20k, standard_ade20k
from emae_mm.data.decoding import BrokenImage, read_label_map
from emae_mm.data.files import IMAGE_EXTENSIONS, label_map_name, list_images, missing_files, require_folder
from emae_mm.errors import DataError

IGNORED = 255


def check_ade20k(dataset: DatasetConfig, inspection: Inspection, num_classes: int | None) -> DataReport:
    """Images with one label map of the same stem each."""
    report = DataReport("ade20k", str(dataset.root))
    require_folder(dataset.root, "data root")
    folder = require_folder(dataset.prefix("img_path"), "folder of images")
    if dataset.prefix("seg_map_path") is None:
        raise DataError(f"{dataset.root}: no folder of label maps is configured", "set data_prefix.seg_map_path")
    maps = require_folder(dataset.prefix("seg_map_path"), "folder of label maps")
    report.classes = dataset.classes or _classes(dataset)
    require_count(dataset.root, len(report.classes), num_classes, "classes are what the model has")
    names = _image_names(dataset, folder, report, inspection)
    suffixes = dataset.cfg.get("img_suffix") or IMAGE_EXTENSIONS
    partner = {name: label_map_name(name, suffixes, dataset.cfg.get("seg_map_suffix", ".png")) for name in names}
    report.images = len(names)
    absent = missing_files(maps, partner.values())
    inspection.settle(
        f"images of {folder} have no label map in {maps}; missing",
        [f"{maps / name}: it is missing" for name in absent] if inspection.collect else absent,
        "name each label map as its image, or remove images without one",
        report,
    )
    report.annotations = len(names) - len(absent)
    sizes = decode(names, lambda name: dict(img_path=str(folder / name)), dataset, report, inspection)

    def problem_of(name: str) -> str | None:
        return _map_problem(maps / partner[name], sizes[name], len(report.classes), dataset.zero_is_unlabelled)

    without, silently = set(absent), replace(inspection, progress=None)  # the images were the progress
    allowed = _allowed(len(report.classes), dataset.zero_is_unlabelled)
    inspection.settle(
        f"of {len(sizes)} sampled label maps some cannot be used",
        [found for _, found in silently.each(problem_of, [n for n in sizes if partner[n] not in without]) if found],
        f"label maps have one channel, the image's size, and as values {allowed}",
        report,
    )
    return report


def _classes(dataset: DatasetConfig) -> tuple[str, ...]:
    """What the data set's class numbers: mmseg's own ADE20K class always has ADE20K's 150."""
    if type_name(dataset.cfg) == "ADE20KDataset":
        return standard_ade20k()["classes"]
    return metainfo_of_ade20k(dataset.root)["classes"]


def _image_names(dataset: DatasetConfig, folder: Path, report: DataReport, inspection: Inspection) -> list[str]:
    suffix = dataset.cfg.get("img_suffix")
    if dataset.cfg.get("ann_file"):
        path = dataset.path(dataset.cfg["ann_file"])
        if not path.is_file():
            raise DataError(f"the annotation file {path} does not exist", "check data_root and ann_file")
        names = [line.strip() + (suffix or ".jpg") for line in path.read_text().splitlines() if line.strip()]
        problem = f"images of {path} are not under {folder}"
        names = present(problem, folder, names, "check data_prefix", report, inspection)
    else:
        names = list_images(folder, (suffix,) if suffix else IMAGE_EXTENSIONS)
    if not names:
        raise DataError(f"{folder} holds no image", f"file names that count as images end in {list(IMAGE_EXTENSIONS)}")
    return names


def _map_problem(path: Path, size: tuple[int, int], classes: int, zero_is_unlabelled: bool) -> str | None:
    """What is wrong with one label map, or None."""
    try:
        labels = read_label_map(path)
    except BrokenImage as reason:
        return f"{path}: {reason}"
    if labels.ndim != 2:
        return f"{path}: it has {labels.shape[-1]} channels (a coloured picture?)"
    if labels.shape != size:
        return f"{path}: its (height, width) is {labels.shape}, the image's {size}"
    values = np.unique(labels)
    highest = classes if zero_is_unlabelled else classes - 1
    wrong = values[(values > highest) & (values != IGNORED)]
    return f"{path}: values {wrong[:5].tolist()} are no class" if len(wrong) else None


def _allowed(classes: int, zero_is_unlabelled: bool) -> str:
    if zero_is_unlabelled:
        return f"0 (unlabelled), 1..{classes} (the classes) or {IGNORED} (ignored)"
    return f"0..{classes - 1} (the classes) or {IGNORED} (ignored)"
