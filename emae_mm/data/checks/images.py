"""Checking images in folders: all names, and a sample of the images."""

from pathlib import Path

from emae_mm.data.checks.config import DatasetConfig
from emae_mm.data.checks.inspection import Inspection, decode, present
from emae_mm.data.checks.report import DataReport
from emae_mm.data.classes import classes_of_imagefolder
from emae_mm.data.files import IMAGE_EXTENSIONS, list_images, require_folder
from emae_mm.data.offenders import listed, refuse
from emae_mm.errors import DataError


def check_imagefolder(dataset: DatasetConfig, inspection: Inspection, num_classes: int | None) -> DataReport:
    """Folders of images, with or without labels."""
    report = DataReport("imagefolder", str(dataset.root))
    require_folder(dataset.root, "data root")
    folder = require_folder(dataset.prefix("img_path"), "folder of images")
    labelled = dataset.cfg.get("with_label", True)
    if dataset.cfg.get("ann_file"):
        names = _check_list(dataset, folder, num_classes, report, inspection)
        report.classes = dataset.classes or ()
    else:
        names = list_images(folder, dataset.cfg.get("extensions", IMAGE_EXTENSIONS))
        if labelled and names:
            names = _check_class_folders(dataset, folder, names, num_classes, report)
    if not names:
        raise DataError(f"{folder} holds no image", f"file names that count as images end in {list(IMAGE_EXTENSIONS)}")
    report.images = len(names)
    decode(names, lambda name: dict(img_path=str(folder / name)), dataset, report, inspection)
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


def _check_list(
    dataset: DatasetConfig, folder: Path, num_classes: int | None, report: DataReport, inspection: Inspection
) -> list[str]:
    """An annotation file of ``path label`` or ``path`` lines; the paths."""
    path = dataset.path(dataset.cfg["ann_file"])
    if not path.is_file():
        raise DataError(f"the annotation file {path} does not exist", "check data_root and ann_file")
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    names = lines
    if dataset.cfg.get("with_label", True):
        pairs = [line.rsplit(" ", 1) for line in lines]
        malformed = [repr(line) for line, pair in zip(lines, pairs, strict=True) if not pair[-1].isdigit()]
        refuse(f"lines of {path} are not of the form 'path label'", malformed, "write one image and its label a line")
        limit = num_classes or (len(dataset.classes) if dataset.classes else None)
        beyond = [repr(line) for line, pair in zip(lines, pairs, strict=True) if limit and int(pair[1]) >= limit]
        refuse(f"labels in {path} are outside 0..{(limit or 0) - 1}", beyond, "mend the list or set num_classes")
        names = [pair[0] for pair in pairs]
    return present(f"images of {path} are not under {folder}", folder, names, "check data_prefix", report, inspection)


def require_count(source: Path, found: int, wanted: int | None, whose: str) -> None:
    """The number of classes in the data must be the one wanted (None: any).

    Raises:
        DataError: it is another.
    """
    if wanted is not None and found != wanted:
        raise DataError(
            f"{source} has {found} classes, but {wanted} {whose}", "set num_classes to the data's, or check data_root"
        )
