"""The classes of a data set, read from the data: folder names, COCO categories, or an ADE20K-style list."""

import json
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emae_mm.data.files import class_folders, require_folder
from emae_mm.errors import DataError

CLASSES_FILE = "classes.json"
ADE20K_FILE = "objectInfo150.txt"  # part of the official ADEChallengeData2016 archive


def classes_of_imagefolder(root: str | Path) -> tuple[str, ...]:
    """Classes of an ImageNet-folder layout: the sorted names of the folders in ``root`` (one split, as ``.../train``).

    Raises:
        DataError: ``root`` is missing or has no folder in it.
    """
    names = class_folders(root)
    if not names:
        raise DataError(
            f"{root} has no class folders",
            "images with labels are expected as <folder>/<class>/<image>; without labels use with_label=False",
        )
    return tuple(names)


def classes_of_coco(ann_file: str | Path) -> tuple[str, ...]:
    """Category names of a COCO file in the order of its list, in which OpenMMLab numbers them too.

    Only the list of categories is parsed where it can be found by itself, so that a large file costs no time.

    Raises:
        DataError: the file is missing, not JSON, or its categories are missing, incomplete or not unique.
    """
    return category_names(_coco_categories(Path(ann_file)), ann_file)


def category_names(categories: Any, ann_file: str | Path) -> tuple[str, ...]:
    """Names in a COCO list of categories, checked.

    Raises:
        DataError: it is no list of ``{"id": int, "name": str}``, is empty, or has an id or a name twice.
    """
    if not _is_category_list(categories):
        raise DataError(
            f"{ann_file} is not a COCO file: 'categories' is missing or no list of objects with 'id' and 'name'",
            "give an instances_*.json in COCO's format",
        )
    for key in ("name", "id"):
        twice = _repeated(category[key] for category in categories)
        if twice:
            raise DataError(f"{ann_file} has several categories with the {key} {twice}", "make them unique")
    return tuple(category["name"] for category in categories)


def load_coco_json(ann_file: str | Path) -> dict:
    """All of an annotation file.

    Raises:
        DataError: the file is missing, not JSON, or its content is no object.
    """
    path = Path(ann_file)
    if not path.is_file():
        raise DataError(f"the annotation file {path} does not exist", "check data_root and ann_file")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise DataError(
            f"the annotation file {path} is not JSON ({error})", "it may be a partial download: fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} is not a COCO file: it holds a {type(content).__name__}, not an object",
            "give an instances_*.json in COCO's format",
        )
    return content


def classes_of_ade20k(root: str | Path) -> tuple[str, ...]:
    """Class names of an ADE20K-style data set; see :func:`metainfo_of_ade20k`."""
    return metainfo_of_ade20k(root)["classes"]


def metainfo_of_ade20k(root: str | Path) -> dict:
    """Classes and palette of an ADE20K-style data set, in the order of the label values (value 1 first).

    They come from ``classes.json`` in ``root``: ``{"classes": [{"name": str, "annotations_value": int, "palette_rgb":
    [r, g, b]}, ...]}`` with the values 1..C, the last two keys optional, or just a list of names. Without that file,
    the official archive's ``objectInfo150.txt`` stands for ADE20K's 150 classes.

    Returns:
        ``dict(classes=tuple of C names, palette=list of C [r, g, b])``; no ``palette`` where the file has none.

    Raises:
        DataError: there is neither file, or ``classes.json`` is not as above.
    """
    folder = require_folder(root, "data root")
    if (folder / CLASSES_FILE).is_file():
        return _read_classes_file(folder / CLASSES_FILE)
    if (folder / ADE20K_FILE).is_file():
        return standard_ade20k()
    raise DataError(
        f"the classes of {folder} are not known: it has neither {CLASSES_FILE} nor ADE20K's {ADE20K_FILE}",
        f'write {folder / CLASSES_FILE}: {{"classes": ["name of label value 1", "name of label value 2", ...]}}',
    )


def standard_ade20k() -> dict:
    """ADE20K's own 150 classes and palette, as mmseg has them."""
    from mmseg.utils import get_classes, get_palette

    return dict(classes=tuple(get_classes("ade20k")), palette=get_palette("ade20k"))


def _read_classes_file(path: Path) -> dict:
    problem = f"{path} is not a list of classes"
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})", "mend the file") from error
    entries = content.get("classes") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{problem}: the key 'classes' is missing or empty", 'use {"classes": ["first", ...]}')
    entries = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries):
        raise DataError(f"{problem}: a class has no 'name'", "every entry is a name, or an object with a 'name'")
    values = [entry.get("annotations_value", position) for position, entry in enumerate(entries, 1)]
    if sorted(map(str, values)) != sorted(map(str, range(1, len(entries) + 1))):
        raise DataError(
            f"{problem}: 'annotations_value' must be each of 1..{len(entries)} once, but they are {values}",
            "label value 0 means unlabelled and is no class",
        )
    entries = [entry for _, entry in sorted(zip(values, entries, strict=True), key=lambda pair: pair[0])]
    names = tuple(entry["name"] for entry in entries)
    if twice := _repeated(names):
        raise DataError(f"{problem}: the name {twice} is there more than once", "make the names unique")
    metainfo = dict(classes=names)
    if all("palette_rgb" in entry for entry in entries):
        metainfo["palette"] = [list(entry["palette_rgb"]) for entry in entries]
    return metainfo


def _coco_categories(path: Path) -> Any:
    """The list under the last "categories" key of the file, or, if that does not look like one, of the parsed file."""
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            position = text.rfind(b'"categories"')
            tail = text[position + len(b'"categories"') : position + 10_000_000] if position >= 0 else b""
        try:
            start = tail.decode().lstrip()
            categories, _ = json.JSONDecoder().raw_decode(start.removeprefix(":").lstrip())
        except ValueError:
            categories = None
        if _is_category_list(categories):
            return categories
    return load_coco_json(path).get("categories")


def _is_category_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(item, dict) and isinstance(item.get("id"), int) and isinstance(item.get("name"), str)
            for item in value
        )
    )


def _repeated(values: Iterable) -> list:
    seen, twice = set(), []
    for value in values:
        if value in seen:
            twice.append(value)
        seen.add(value)
    return twice
