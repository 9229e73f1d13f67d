"""Which files of a folder are its images. Data sets and checks share these rules, so that they always agree."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from emae_mm.errors import DataError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")


def is_image_name(name: str, extensions: Iterable[str] = IMAGE_EXTENSIONS) -> bool:
    """Whether a file name ends as an image does, in either case of letters."""
    return name.lower().endswith(tuple(extensions))


def require_folder(folder: str | Path, role: str) -> Path:
    """The folder as a path.

    Args:
        folder: what the configuration names.
        role: what the folder is for, as the message should call it ("data root", "folder of images").

    Raises:
        DataError: it does not exist, or is not a folder.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"the {role} {path} {what}", "set --data-root (or data_root in the config)")
    return path


def class_folders(root: str | Path) -> list[str]:
    """Names of the visible folders directly under ``root``, sorted: the classes of the ImageNet-folder layout."""
    with os.scandir(require_folder(root, "folder of class folders")) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_images(root: str | Path, extensions: Iterable[str] = IMAGE_EXTENSIONS) -> list[str]:
    """All images under ``root`` at any depth, as sorted paths relative to it with ``/`` between the parts.

    Hidden files and folders (a leading dot) are left out; links to folders are followed.
    """
    extensions = tuple(extensions)
    return sorted(name for name in _walk(str(root), "") if is_image_name(name, extensions))


def _walk(folder: str, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def missing_files(root: str | Path, names: Iterable[str]) -> list[str]:
    """Those of ``names`` (paths relative to ``root``) that are no files. Each folder is listed once, not each file."""
    root = Path(root)
    listings: dict[str, set[str]] = {}
    missing = []
    for name in names:
        folder, base = os.path.split(name)
        if folder not in listings:
            try:
                listings[folder] = set(os.listdir(root / folder))
            except (FileNotFoundError, NotADirectoryError):
                listings[folder] = set()
        if base not in listings[folder]:
            missing.append(name)
    return missing


def label_map_name(image_name: str, img_suffix: str | tuple[str, ...], seg_map_suffix: str = ".png") -> str:
    """Where the label map of an image is: both names are relative to their folder and differ in the suffix only."""
    if isinstance(img_suffix, str) and image_name.endswith(img_suffix):
        return image_name[: -len(img_suffix)] + seg_map_suffix
    return os.path.splitext(image_name)[0] + seg_map_suffix
