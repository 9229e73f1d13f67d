"""Checking OpenImages: all of the list of images, and a sample of them."""

from emae_mm.data.checks.config import DatasetConfig
from emae_mm.data.checks.inspection import Inspection, decode, present
from emae_mm.data.checks.report import DataReport
from emae_mm.data.files import missing_files, require_folder
from emae_mm.data.offenders import listed
from emae_mm.data.openimages import IMAGE_LIST, read_image_list


def check_openimages(dataset: DatasetConfig, inspection: Inspection, num_classes: int | None) -> DataReport:
    """A CSV list with its images; there are no classes. As many may be missing as training tolerates."""
    report = DataReport("openimages", str(dataset.root))
    require_folder(dataset.root, "data root")
    folder = require_folder(dataset.prefix("img_path"), "folder of images")
    path = dataset.path(dataset.cfg.get("ann_file", IMAGE_LIST))
    names = [image.name for image in read_image_list(path, folder, dataset.cfg.get("subset", "train"))]
    report.images = len(names)
    missing = missing_files(folder, names)
    if not inspection.collect and 0 < len(missing) <= min(dataset.max_broken, len(names) - 1):
        report.notes.append(f"images of {path.name} are missing and will be skipped: {listed(missing)}")
        absent = set(missing)
        names = [name for name in names if name not in absent]
    else:
        names = present(
            f"images of {path} are not under {folder}",
            folder,
            names,
            "check data_prefix, or fetch them",
            report,
            inspection,
        )
    decode(names, lambda name: dict(img_path=str(folder / name)), dataset, report, inspection)
    return report
