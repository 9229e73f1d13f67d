"""The text of each cell, shared by all renderers."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from emae_mm.leaderboard.metrics import MetricInfo
from emae_mm.leaderboard.rows import Row, Value
from emae_mm.leaderboard.tables import Block, Table

NOISE_RULE = (
    "A gap to the best row is marked as noise when it is below twice the standard error of the difference (for two "
    "single runs of equal seed noise sigma: below 2*sqrt(2)*sigma). The error is the spread of the row's own seeds or "
    "published seed noise; where only the number of evaluated images is known, it is an accuracy's sampling error, "
    "which is a lower bound. 'Seed noise unknown' claims nothing either way."
)
RANKING_RULE = (
    "Only rows of one protocol and one data set are ranked together. Measured rows were run with this project and link "
    "to their record and config; published rows quote their source."
)
UNRANKED = "Listed, not ranked: the rows are not comparable with each other."


@dataclass(frozen=True)
class Link:
    """A label, and a relative URL if there is a file to point at."""

    label: str
    href: str = ""


@dataclass(frozen=True)
class Line:
    """One row of a block as text; ``metrics`` is in the block's order, ``notes`` are numbers of the table's notes."""

    kind: str
    rank: str
    method: str
    arch: str
    pretrain_data: str
    epochs: str
    metrics: tuple[str, ...]
    seeds: str
    gap: str
    links: tuple[Link, ...]
    sources: tuple[str, ...]
    notes: tuple[int, ...]


HEADERS_BEFORE = ("Rank", "Kind", "Method", "Architecture", "Pre-training data", "Epochs")
HEADERS_AFTER = ("Seeds", "Gap to best", "Source", "Notes")


def headers(block: Block) -> list[str]:
    """Column headings of a block."""
    return [*HEADERS_BEFORE, *(metric_heading(metric) for metric in block.metrics.values()), *HEADERS_AFTER]


def metric_heading(metric: MetricInfo) -> str:
    """Label, unit and, where lower is better, the direction."""
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.label}{unit}{'' if metric.higher_is_better else ', lower is better'}"


def format_value(value: Value | None, metric: MetricInfo, exact: bool = False) -> str:
    """``70.4``, or ``70.4 ± 0.3 (3)`` for the mean of three runs. Published numbers are ``exact``: kept as given."""
    if value is None:
        return "–"
    if exact:
        return f"{value.mean:.{max(metric.decimals, _decimals(value.mean))}f}"
    mean = f"{value.mean:.{metric.decimals}f}"
    return mean if value.std is None else f"{mean} ± {value.std:.{max(metric.decimals, 2)}f} ({value.n})"


def _decimals(number: float) -> int:
    return len(f"{number!r}".partition(".")[2].rstrip("0"))


def method_label(row: Row) -> str:
    """Method and, in parentheses, its variant."""
    return f"{row.method} ({row.variant})" if row.variant else row.method


def format_epochs(epochs: float | None) -> str:
    """``800``, ``0.5``, or a dash where unknown."""
    return "–" if epochs is None else f"{epochs:g}"


def format_gap(row: Row, metric: MetricInfo) -> str:
    """Distance to the best row and what noise makes of it."""
    if row.gap is None:
        return "–"
    if row.rank == 1:
        return "best"
    return f"{row.gap:.{max(metric.decimals, 2)}f}{f' ({row.mark})' if row.mark else ''}"


def run_links(row: Row, out: Path) -> tuple[Link, ...]:
    """Record, config and encoder of each run; files that exist are linked relative to ``out``, hashes are shortened."""
    links = []
    for found in row.runs:
        record, folder = found.record, found.path.parent
        links.append(Link(f"record (seed {record.seed})", relative_link(found.path, out)))
        config = folder / record.config.path
        href = relative_link(config, out) if config.is_file() else ""
        links.append(Link(f"config {record.config.sha256[:12]}", href))
        if record.encoder is not None:
            encoder = folder / record.encoder.path
            href = relative_link(encoder, out) if encoder.is_file() else ""
            links.append(Link(f"encoder {record.encoder.sha256[:12]}", href))
    return tuple(links)


def relative_link(path: Path, out: Path) -> str:
    """The URL of a file, relative to the folder ``out``."""
    return quote(Path(os.path.relpath(path.resolve(), out.resolve())).as_posix())


def table_notes(table: Table) -> list[str]:
    """The distinct notes of a table's rows; note k is number k + 1."""
    return list(dict.fromkeys(note for block in table.blocks for row in block.rows for note in row.notes))


def lines(block: Block, out: Path, notes: list[str]) -> list[Line]:
    """The block's rows as text."""
    primary = block.metrics[block.primary]
    return [
        Line(
            kind=row.kind,
            rank=str(row.rank) if row.rank else "–",
            method=method_label(row),
            arch=row.arch or "–",
            pretrain_data=row.pretrain_data or "–",
            epochs=format_epochs(row.pretrain_epochs),
            metrics=tuple(
                format_value(row.values.get(name), metric, exact=not row.measured)
                for name, metric in block.metrics.items()
            ),
            seeds=str(len(row.runs)) if row.measured else "–",
            gap=format_gap(row, primary),
            links=run_links(row, out),
            sources=row.sources,
            notes=tuple(notes.index(note) + 1 for note in row.notes),
        )
        for row in block.rows
    ]
