"""``emae-mm data check``: counts a data set, decodes its images and names every broken file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from emae_mm.data.checks import DataReport, Inspection, check_dataset
from emae_mm.data.checks.layouts import LAYOUTS
from emae_mm.data.offenders import OffendersError
from emae_mm.errors import DataError
from emae_mm.fileio import write_text


def check_command(
    path: str, layout: str, sample: int | None, workers: int, report_file: Path | None, seed: int = 0
) -> bool:
    """Check all splits, print what was found, and write it to a file if one is named.

    Args:
        path: the data set's folder, or a pattern of shards.
        layout: a key of :data:`~emae_mm.data.checks.layouts.LAYOUTS`.
        sample: number of images to decode in each split; None: all.
        workers: threads that decode.
        report_file: gets the same text.
        seed: of the sample.

    Returns:
        whether nothing is broken.

    Raises:
        DataError: the folder is missing or in another layout.
    """
    lines, broken = [], 0
    for split, dataset in LAYOUTS[layout](path).items():
        with _progress(split) as progress:
            found, faults = _check_split(split, dataset, Inspection(sample, seed, True, workers, progress))
        print("\n".join(found), flush=True)
        lines += found
        broken += faults
    last = f"{broken} {'fault' if broken == 1 else 'faults'} in {path}" if broken else f"{path}: nothing is broken"
    print(last)
    if report_file is not None:
        write_text(report_file, "\n".join([*lines, last, ""]))
    return not broken


def _check_split(split: str, dataset: dict, inspection: Inspection) -> tuple[list[str], int]:
    """The lines to print, and the number of faults."""
    try:
        report = check_dataset(dataset, inspection)
    except OffendersError as error:
        return [f"{split}: {error}", *(f"  {offender}" for offender in error.offenders)], len(error.offenders)
    except DataError as error:
        return [f"{split}: {error}"], 1
    report.split = split
    return [*_told(report), *(f"  broken: {name}" for name in report.broken)], len(report.broken)


def _told(report: DataReport) -> list[str]:
    lines = str(report).splitlines()
    if report.sampled:
        lines.append(f"  decoded {report.sampled} of {report.images}: {report.size_range() or 'none is whole'}")
    return lines


@contextmanager
def _progress(split: str) -> Iterator:
    """A callback (done, total) that moves a bar, which is gone when the results are printed."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"decoding {split}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
