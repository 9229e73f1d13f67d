"""From work directories to the three files of a leaderboard."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emae_mm.errors import UserError
from emae_mm.fileio import write_text
from emae_mm.leaderboard.gallery import copy_pictures
from emae_mm.leaderboard.page import html
from emae_mm.leaderboard.published import load_published
from emae_mm.leaderboard.records import RECORD_NAME, find_records
from emae_mm.leaderboard.tables import Table, build
from emae_mm.leaderboard.text import csv_text, markdown, print_summary


@dataclass(frozen=True)
class LeaderboardFiles:
    """What was written, and the tables it shows."""

    markdown: Path
    csv: Path
    html: Path
    tables: tuple[Table, ...]


def write_leaderboard(
    work_dirs: Sequence[str | Path],
    out: str | Path,
    *,
    published: bool = True,
    figures: Sequence[tuple[str, str | Path]] = (),
) -> LeaderboardFiles:
    """Write ``leaderboard.md``, ``leaderboard.csv`` and ``leaderboard.html`` into the folder ``out``, each atomically.

    The pictures that the runs' records name are copied to ``leaderboard_pictures`` beside the page.

    Args:
        work_dirs: folders searched for records, with all below them. Without any, only published results are shown.
        out: folder, made if absent. Links to records and configs are relative to it.
        published: whether published results are shown beside the measured ones.
        figures: (title, PNG, JPEG or SVG file) pairs embedded into the page.

    Raises:
        UserError: a work directory does not exist or none of them holds a record, there is nothing to show, a record is
            malformed or disagrees with others on a metric's unit, or a figure cannot be read.
    """
    records = find_records(*work_dirs)
    if work_dirs and not records:
        raise UserError(
            f"no {RECORD_NAME} in {', '.join(map(str, work_dirs))} or below",
            "give the work directories of finished runs, or none for the published results alone",
        )
    if not records and not published:
        raise UserError("a leaderboard of neither records nor published results is empty", "give work directories")
    tables = build(records, load_published() if published else [])
    out = Path(out)
    contents = {
        "leaderboard.md": markdown(tables, out),
        "leaderboard.csv": csv_text(tables, out),
        "leaderboard.html": html(tables, out, figures),
    }
    for name, content in contents.items():
        write_text(out / name, content)
    copy_pictures(tables, out)
    return LeaderboardFiles(*(out / name for name in contents), tables=tuple(tables))


def leaderboard_command(
    work_dirs: Sequence[str | Path],
    out: str | Path,
    *,
    published: bool = True,
    figures: Sequence[tuple[str, str | Path]] = (),
) -> LeaderboardFiles:
    """``emae-mm leaderboard WORK_DIRS... --out DIR``: write the files, print a summary and where the files are."""
    files = write_leaderboard(work_dirs, out, published=published, figures=figures)
    print_summary(files.tables)
    for path in (files.markdown, files.csv, files.html):
        print(f"wrote {path}")
    return files
