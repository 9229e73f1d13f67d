"""The pictures of measured runs, copied beside the leaderboard page."""

import base64
import io
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from emae_mm.fileio import file_sha256, replaced_atomically
from emae_mm.leaderboard.records import FoundRecord
from emae_mm.leaderboard.tables import Block, Table
from emae_mm.leaderboard.view import method_label

FOLDER = "leaderboard_pictures"
LARGEST_MB = 4
"""A picture of more is not copied; the page says so."""
THUMBNAIL = (220, 160)
_OWN = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Picture:
    """One picture on the page: its title, a small version as a data URI, and the relative URL of the copy.

    ``missing`` says why there is none; the other two are then empty.
    """

    title: str
    thumbnail: str = ""
    href: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Gallery:
    """The pictures of one run."""

    label: str
    pictures: tuple[Picture, ...]


def run_folder(found: FoundRecord) -> str:
    """The folder of a run's copies: named by its record's content, so that equal pages have equal links."""
    return file_sha256(found.path)[:12]


def copy_pictures(tables: Iterable[Table], out: Path) -> None:
    """Copy the pictures of all measured runs below ``out``, each atomically, and remove copies of runs not shown."""
    folder, used = out / FOLDER, set()
    for found in _runs(tables):
        for path in found.record.pictures:
            source = found.path.parent / path
            if _reason(source):
                continue
            used.add(run_folder(found))
            target = folder / run_folder(found) / path
            if not target.is_file() or file_sha256(target) != file_sha256(source):
                with replaced_atomically(target) as temporary:
                    shutil.copyfile(source, temporary)
    for old in folder.iterdir() if folder.is_dir() else ():
        if old.is_dir() and _OWN.fullmatch(old.name) and old.name not in used:
            shutil.rmtree(old)


def galleries(block: Block) -> list[Gallery]:
    """The galleries of a block's measured runs, in the order of its rows; runs without pictures have none.

    Their links are where :func:`copy_pictures` puts the files, relative to the page.
    """
    return [
        Gallery(
            f"{method_label(row)}, {row.arch}, seed {found.record.seed}",
            tuple(_picture(found, path, title) for path, title in found.record.pictures.items()),
        )
        for row in block.measured
        for found in row.runs
        if found.record.pictures
    ]


def _runs(tables: Iterable[Table]) -> list[FoundRecord]:
    return [found for table in tables for block in table.blocks for row in block.measured for found in row.runs]


def _reason(source: Path) -> str:
    """Why a picture cannot be copied, or an empty string."""
    if not source.is_file():
        return "the file is no longer beside the record"
    return f"larger than {LARGEST_MB} MB, see the work directory" if source.stat().st_size > LARGEST_MB * 1e6 else ""


def _picture(found: FoundRecord, path: str, title: str) -> Picture:
    source = found.path.parent / path
    if reason := _reason(source):
        return Picture(title, missing=reason)
    try:
        thumbnail = _thumbnail(source)
    except OSError:  # Pillow's, of what is no image
        return Picture(title, missing="the file is no image")
    return Picture(title, thumbnail, quote(f"{FOLDER}/{run_folder(found)}/{path}"))


def _thumbnail(source: Path) -> str:
    from PIL import Image

    small = io.BytesIO()
    with Image.open(source) as image:
        image = image.convert("RGB")
        image.thumbnail(THUMBNAIL)
        image.save(small, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(small.getvalue()).decode()}"
