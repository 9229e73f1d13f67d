"""Published results, one number a row, with their sources (``published.csv`` beside this file).

``task``, ``protocol``, ``data``, ``method``, ``variant`` and ``metric`` are the project's names; the ``*_in_source``
columns keep what the source calls them. A row without a value stands for a number the source does not give or whose
table was not recoverable; it stays in the file and out of the tables.

``protocol`` is the name of one exact recipe where the source follows one. ``recipe of each source`` gathers cited rows
whose recipes differ or are not known: such rows are listed and never ranked.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from emae_mm.errors import DataError
from emae_mm.leaderboard.metrics import METRICS, TASK_TITLES

PUBLISHED_CSV = Path(__file__).with_name("published.csv")

UNRANKED_PROTOCOL = "recipe of each source"


@dataclass(frozen=True)
class PublishedResult:
    """One published number; empty strings and None mean that the source does not say.

    ``pretrain_epochs`` is None where unknown, ``value`` is None where the source gives none.
    """

    task: str
    protocol: str
    data: str
    method: str
    variant: str
    arch: str
    pretrain_data: str
    pretrain_epochs: float | None
    metric: str
    value: float | None
    source: str
    source_table: str
    method_in_source: str
    protocol_in_source: str
    note: str

    @property
    def known_metric(self) -> bool:
        """False where the column's heading was lost, so that the number cannot be shown under a name."""
        return self.metric in METRICS


def load_published(path: str | Path = PUBLISHED_CSV) -> list[PublishedResult]:
    """Every row of the table, in its order.

    Raises:
        DataError: a column is missing or surplus, or a row holds an unknown task or no number where one belongs; the
            message names file, line and column.
    """
    path = Path(path)
    columns = list(PublishedResult.__dataclass_fields__)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise DataError(f"{path}: columns are {reader.fieldnames}", f"they must be {columns}")
        return [_parse(row, f"{path}, line {reader.line_num}") for row in reader]


def _parse(row: dict[str, str], where: str) -> PublishedResult:
    if None in row or None in row.values():
        raise DataError(f"{where}: the row has too many or too few columns", "quote values that contain commas")
    if row["task"] not in TASK_TITLES and (row["task"] or row["value"]):
        raise DataError(f"{where}: task is {row['task']!r}", f"use one of {', '.join(TASK_TITLES)}")
    numbers = {key: _number(row[key], f"{where}: {key}") for key in ("pretrain_epochs", "value")}
    return PublishedResult(**{**row, **numbers})


def _number(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where} is {text!r}", "give a finite number, or leave it empty where the source has none")
    return value
