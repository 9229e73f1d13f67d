"""OpenImages in its own layout: a CSV list of images and one folder a subset, or sixteen of the training subset."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.dataset import BaseDataset

from emae_mm.data.files import require_folder
from emae_mm.data.offenders import refuse
from emae_mm.errors import DataError
from emae_mm.registry import DATASETS

SUBSETS = ("train", "validation", "test")
TURNS = {"0": 0, "90": 90, "180": 180, "270": 270, "": None, "nan": None}
IMAGE_LIST = "train-images-boxable-with-rotation.csv"
"""The list of the 1.7 million training images that have boxes, which the archives hold."""
_NOT_A_LIST = "give a list of images, as train-images-boxable-with-rotation.csv or oidv6-train-images-*.csv"


class ListedImage(NamedTuple):
    """One line of an image list.

    Attributes:
        name: path relative to the folder of images, as ``"train_0/000002b66c9c498e.jpg"``.
        rotation: degrees to turn the stored image counterclockwise, or None where that is not known.
    """

    name: str
    rotation: int | None


def read_image_list(path: str | Path, images: str | Path, subset: str = "") -> list[ListedImage]:
    """The images that a CSV file of OpenImages lists, in its order.

    Only the columns ``ImageID`` and, where they are there, ``Subset`` and ``Rotation`` are read. An image is
    ``<subset>/<ImageID>.jpg``, or ``<subset>_<first digit>/<ImageID>.jpg`` where that folder exists, which is how the
    archives ``train_0.tar.gz`` to ``train_f.tar.gz`` unpack.

    Args:
        path: the CSV file.
        images: the folder that holds the subsets' folders.
        subset: ``"train"``, ``"validation"`` or ``"test"``: lines of another are left out; a file without the column is
            all of this subset. Empty takes the column's, or, without the column, the file name's.

    Raises:
        DataError: no such file, no list of images, an image twice, an unknown subset or rotation, or nothing is left.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"the annotation file {path} does not exist", "check data_root and ann_file")
    if subset and subset not in SUBSETS:
        raise DataError(f"OpenImages has no subset {subset!r}", f"choose one of {list(SUBSETS)}")
    split = {folder for folder in _subfolders(Path(images)) if folder.rpartition("_")[0] in SUBSETS}
    found, seen, problems = [], set(), []
    for line, (image, part, turn) in _rows(path, subset or _subset_named(path)):
        if subset and part != subset:
            continue
        if part not in SUBSETS or turn not in TURNS or not image or image in seen:
            problems.append(f"line {line} (ImageID {image!r}, Subset {part!r}, Rotation {turn!r})")
            continue
        seen.add(image)
        folder = f"{part}_{image[0].lower()}"
        found.append(ListedImage(f"{folder if folder in split else part}/{image}.jpg", TURNS[turn]))
    refuse(f"{path}: images that are there twice, or of an unknown subset or rotation", problems, "mend the list")
    if not found:
        raise DataError(
            f"{path} lists no image{f' of subset {subset!r}' if subset else ''}", "check ann_file and subset"
        )
    return found


def _rows(path: Path, subset: str) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Line number and (ImageID, subset, rotation)."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if "ImageID" not in header or "LabelName" in header:  # the latter: one line an annotation, not an image
            raise DataError(f"{path} is no list of images: its columns are {header[:12]}", _NOT_A_LIST)
        image = header.index("ImageID")
        part, turn = (header.index(name) if name in header else None for name in ("Subset", "Rotation"))
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(row)} columns, not {len(header)}",
                    "it may be a partial download: fetch it again",
                )
            rotation = "" if turn is None else row[turn].removesuffix(".0")
            yield rows.line_num, (row[image], subset if part is None else row[part], rotation)


def _subset_named(path: Path) -> str:
    """The subset a file's name tells, "train" if none (as image_ids_and_rotation.csv, which has the column)."""
    return next((name for name in SUBSETS if name in path.name), "train")


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in require_folder(folder, "folder of images").iterdir() if entry.is_dir()]


@DATASETS.register_module()
class OpenImages(BaseDataset):
    """OpenImages without labels, for pre-training.

    Args:
        data_root: the data set's folder.
        ann_file: the list of images.
        data_prefix: the folder below ``data_root`` that holds ``train/`` or ``train_0/`` to ``train_f/`` (and
            ``validation/``, ``test/``).
        subset: see :func:`read_image_list`.
        apply_rotation: turn images as the column ``Rotation`` says, which ``LoadImage`` does (in place of the EXIF
            orientation); where the column says nothing, the file's EXIF orientation counts.
        **kwargs: as for mmengine's ``BaseDataset``.

    Raises:
        DataError: as :func:`read_image_list`. Images that are listed but missing are met by ``LoadImage``'s policy.
    """

    def __init__(
        self,
        data_root: str = "",
        ann_file: str = IMAGE_LIST,
        data_prefix: str | dict = "",
        subset: str = "train",
        apply_rotation: bool = True,
        **kwargs,
    ):
        self.subset, self.apply_rotation = subset, apply_rotation
        prefix = {"img_path": data_prefix} if isinstance(data_prefix, str) else data_prefix
        super().__init__(data_root=data_root, ann_file=ann_file, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One ``dict(img_path=str)`` an image, with ``rotation`` (degrees counterclockwise) where it is known."""
        folder = Path(self.data_prefix["img_path"] or self.data_root or ".")
        found = []
        for image in read_image_list(self.ann_file, folder, self.subset):
            found.append(dict(img_path=str(folder / image.name)))
            if self.apply_rotation and image.rotation is not None:
                found[-1]["rotation"] = image.rotation
        return found
