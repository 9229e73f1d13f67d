"""Checking COCO-format detection data: all of the JSON, and a sample of the images."""

import numpy as np

from emae_mm.data.checks.coco_masks import check_masks
from emae_mm.data.checks.config import DatasetConfig
from emae_mm.data.checks.images import require_count
from emae_mm.data.checks.inspection import Inspection, decode, present
from emae_mm.data.checks.report import DataReport
from emae_mm.data.classes import category_names, load_coco_json
from emae_mm.data.files import require_folder
from emae_mm.data.offenders import listed, refuse
from emae_mm.errors import DataError

# Annotation tools round: COCO's own boxes reach a fraction of a pixel over the border.
BORDER = 1.0
# COCO train2017 itself has a few boxes of zero width or height among 860 000, which mmdet leaves out.
TOLERATED_EMPTY = 1e-4
_IMAGE_KEYS = ("id", "file_name", "width", "height")
_ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "area")
_FIX = "mend the annotation file; nothing was changed"


def check_coco(dataset: DatasetConfig, inspection: Inspection, num_classes: int | None) -> DataReport:
    """COCO's ``instances_*.json`` with its images."""
    report = DataReport("coco", str(dataset.root))
    require_folder(dataset.root, "data root")
    folder = require_folder(dataset.prefix("img"), "folder of images")
    path = dataset.path(dataset.cfg.get("ann_file", ""))
    content = load_coco_json(path)
    images, annotations = _lists(content, path)
    report.classes = category_names(content["categories"], path)
    if dataset.classes:
        unknown = [name for name in dataset.classes if name not in report.classes]
        refuse(f"classes in metainfo are no categories of {path}", unknown, "leave metainfo out to take the file's")
        report.classes = dataset.classes
    require_count(path, len(report.classes), num_classes, "classes are what the model has")
    _check_references(content, path)
    sizes = {image["id"]: (image["width"], image["height"]) for image in images}
    _check_boxes(annotations, sizes, path, report)
    if dataset.needs_masks or (inspection.collect and any(item.get("segmentation") for item in annotations)):
        check_masks(annotations, {image["id"]: image for image in images}, path, report)
    elif inspection.collect and annotations:
        report.notes.append("no annotation has a mask: these data serve detectors without a mask head only")
    names = present(
        f"images of {path} are not under {folder}",
        folder,
        [image["file_name"] for image in images],
        "check data_prefix, or fetch the missing images",
        report,
        inspection,
    )
    report.images, report.annotations = len(images), len(annotations)
    decoded = decode(names, lambda name: dict(img_path=str(folder / name)), dataset, report, inspection)
    other = [
        f"{folder / image['file_name']} is {decoded[image['file_name']][::-1]}, not {sizes[image['id']]}"
        for image in images
        if decoded.get(image["file_name"], sizes[image["id"]][::-1]) != sizes[image["id"]][::-1]
    ]
    inspection.settle(
        f"images have another (width, height) than {path} says", other, "use the images the boxes were drawn on", report
    )
    return report


def _lists(content: dict, path) -> tuple[list[dict], list[dict]]:
    """The images and annotations, each known to have the keys that loading reads."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(
                f"{path} is not a COCO file: the key {key!r} is missing or no list", "give an instances_*.json"
            )
    if not content["images"]:
        raise DataError(f"{path} lists no image", "check ann_file")
    for name, keys in (("images", _IMAGE_KEYS), ("annotations", _ANNOTATION_KEYS)):
        other = [index for index, item in enumerate(content[name]) if not isinstance(item, dict)]
        refuse(f"{path}: entries of {name!r} that are no objects, at the positions", other, _FIX)
        for key in keys:
            lacking = [index for index, item in enumerate(content[name]) if key not in item]
            refuse(f"{path}: entries of {name!r} without the key {key!r}, at the positions", lacking, _FIX)
    return content["images"], content["annotations"]


def _check_references(content: dict, path) -> None:
    for name in ("images", "annotations"):
        ids = [item["id"] for item in content[name]]
        if len(set(ids)) < len(ids):
            values, counts = np.unique(np.array(ids), return_counts=True)
            refuse(f"{path}: ids that several {name} have", values[counts > 1].tolist(), _FIX)
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        known = {item["id"] for item in content[name]}
        unknown = [f"annotation {item['id']}: {item[key]}" for item in content["annotations"] if item[key] not in known]
        refuse(f"{path}: annotations with a {key} that is not in {name!r}", unknown, _FIX)


def _is_box(value) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(number, (int, float)) for number in value)


def _check_boxes(annotations: list[dict], sizes: dict, path, report: DataReport) -> None:
    if not annotations:
        return
    malformed = [item["id"] for item in annotations if not _is_box(item["bbox"])]
    refuse(f"{path}: boxes that are not [x, y, width, height], in the annotations", malformed, _FIX)
    boxes = np.array([item["bbox"] for item in annotations], dtype=np.float64)
    border = np.array([sizes[item["image_id"]] for item in annotations], dtype=np.float64)

    def named(mask: np.ndarray) -> list[str]:
        return [
            f"annotation {annotations[i]['id']} {annotations[i]['bbox']} in image {annotations[i]['image_id']} "
            f"of {int(border[i, 0])}x{int(border[i, 1])}"
            for i in np.flatnonzero(mask)
        ]

    invalid = ~np.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1)
    refuse(f"{path}: boxes with a negative or infinite size", named(invalid), _FIX)
    empty = named((boxes[:, 2:] == 0).any(1))
    if len(empty) > TOLERATED_EMPTY * len(boxes):
        refuse(f"{path}: boxes without area", empty, _FIX)
    elif empty:
        report.notes.append(f"boxes without area, which are not used: {listed(empty)}")
    outside = (boxes[:, :2] < -BORDER).any(1) | (boxes[:, :2] + boxes[:, 2:] > border + BORDER).any(1)
    refuse(f"{path}: boxes more than {BORDER:g} px outside their image", named(outside), _FIX)
