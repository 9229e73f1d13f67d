"""Writing the scenes in the three layouts of the field: ImageNet folders, COCO and ADE20K."""

import io
import json
from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from emae_mm.data.demo.scenes import Scene
from emae_mm.data.demo.sources import NAMES

CLASSIFICATION, COCO, ADE20K = "classification", "coco", "ade20k"
CLASS_FOLDERS = tuple(f"{digit}_{name}" for digit, name in enumerate(NAMES))
# Four digits that differ in coarse shape: a small encoder can learn to find and tell apart four in seconds, ten not.
DENSE_DIGITS = (0, 1, 2, 4)
DENSE_NAMES = tuple(NAMES[digit] for digit in DENSE_DIGITS)
SEGMENTS = ("background", *DENSE_NAMES)  # label values 1..5; 0 is unlabelled
_QUALITY = 92


def write_json(path: Path, content: dict) -> None:
    """Write JSON with line breaks, the same bytes for the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_classified(root: Path, split: str, index: int, scene: Scene) -> None:
    """One image of the ImageNet-folder layout; the class is that of its only digit."""
    folder = root / CLASSIFICATION / split / CLASS_FOLDERS[scene.digits[0]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}_{index:05d}.jpg").write_bytes(_jpeg(scene.image))


class DenseWriter:
    """Writes the same scenes in COCO's and in ADE20K's layout.

    Args:
        root: the data set's folder.
        split: ``"train"`` or ``"val"``.
    """

    def __init__(self, root: Path, split: str):
        ade_split = {"train": "training", "val": "validation"}[split]
        self._split = split
        self._coco_images = root / COCO / f"{split}2017"
        self._coco_json = root / COCO / "annotations" / f"instances_{split}2017.json"
        self._ade_images = root / ADE20K / "images" / ade_split
        self._ade_maps = root / ADE20K / "annotations" / ade_split
        for folder in (self._coco_images, self._ade_images, self._ade_maps):
            folder.mkdir(parents=True, exist_ok=True)
        self._images: list[dict] = []
        self._annotations: list[dict] = []

    def add(self, scene: Scene) -> None:
        """Write the image and its label map, and remember its annotations."""
        image_id = len(self._images) + 1
        stem = f"{image_id:012d}"
        height, width = scene.image.shape[:2]
        data = _jpeg(scene.image)
        (self._coco_images / f"{stem}.jpg").write_bytes(data)
        (self._ade_images / f"{stem}.jpg").write_bytes(data)
        Image.fromarray(_label_map(scene)).save(self._ade_maps / f"{stem}.png", optimize=False)
        self._images.append(dict(id=image_id, file_name=f"{stem}.jpg", width=width, height=height))
        for digit, mask in zip(scene.digits, scene.masks, strict=True):
            self._annotations.append(_annotation(len(self._annotations) + 1, image_id, digit, mask))

    def close(self) -> None:
        """Write the COCO file."""
        write_json(
            self._coco_json,
            dict(
                info=dict(description=f"emae_mm demonstration, {self._split}: digits on photographs; not a benchmark"),
                images=self._images,
                annotations=self._annotations,
                categories=[dict(id=id_, name=name, supercategory="digit") for id_, name in enumerate(DENSE_NAMES, 1)],
            ),
        )


def write_segment_names(root: Path) -> None:
    """The ADE20K layout's ``classes.json``: names, label values and a palette."""
    colours = [
        (90, 90, 90),
        *(tuple(round(255 * c) for c in hsv_to_rgb(digit / 10, 0.85, 0.95)) for digit in DENSE_DIGITS),
    ]
    classes = [
        dict(name=name, annotations_value=value, palette_rgb=list(colour))
        for value, (name, colour) in enumerate(zip(SEGMENTS, colours, strict=True), 1)
    ]
    write_json(root / ADE20K / "classes.json", dict(classes=classes))


def _annotation(annotation_id: int, image_id: int, digit: int, mask: np.ndarray) -> dict:
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(
        id=annotation_id,
        image_id=image_id,
        category_id=DENSE_DIGITS.index(digit) + 1,
        iscrowd=0,
        bbox=[float(value) for value in rle.toBbox(encoded)],
        area=int(rle.area(encoded)),
        segmentation=dict(size=[int(side) for side in encoded["size"]], counts=encoded["counts"].decode("ascii")),
    )


def _label_map(scene: Scene) -> np.ndarray:
    """(H, W) uint8: 0 on the blended edges, 1 background, 2..5 the digits."""
    labels = np.ones(scene.edges.shape, dtype=np.uint8)
    for digit, mask in zip(scene.digits, scene.masks, strict=True):
        labels[mask] = DENSE_DIGITS.index(digit) + 2
    labels[scene.edges] = 0
    return labels


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()
