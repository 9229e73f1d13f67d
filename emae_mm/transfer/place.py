"""A record's place among the published results of its task."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from emae_mm.leaderboard.published import load_published
from emae_mm.leaderboard.records import FoundRecord, read_record
from emae_mm.leaderboard.rows import Row
from emae_mm.leaderboard.schema import QUICK_PREFIX, Record
from emae_mm.leaderboard.tables import Block, build
from emae_mm.leaderboard.view import format_gap, format_value, method_label, metric_heading
from emae_mm.transfer.console import say

MARK = ">"
"""Stands before the row of this run."""


def show_place(path: str | Path, console: Console) -> None:
    """Print a record's metrics, its place among the published results of its protocol, and where the record is.

    A quick run, and any protocol that nobody has published results of, stands beside the published rows or alone,
    without a rank.

    Args:
        path: the ``record.json``.
        console: where to print.

    Raises:
        RecordError: the record is unreadable.
    """
    found = FoundRecord(read_record(path), Path(path))
    record = found.record
    block = _block_of(build([found], load_published()), record.protocol, record)
    quick = record.protocol.startswith(QUICK_PREFIX)
    rows, compared = list(block.rows), block.ranked and len(block.rows) > 1
    if quick:
        rows += _published_for_orientation(record)
    console.print(_table(block, rows, compared))
    say(console, _sentence(block, rows, compared, quick))
    if record.notes:
        say(console, f"note: {record.notes}")
    say(console, f"record: {path}")


def _block_of(tables: Sequence, protocol: str, record: Record) -> Block:
    wanted = (record.task, protocol, record.data)
    return next(
        block for table in tables for block in table.blocks if (block.task, block.protocol, block.data) == wanted
    )


def _published_for_orientation(record: Record) -> list[Row]:
    """The published rows of the protocol that a quick run has tried, on whatever data."""
    protocol = record.protocol.removeprefix(QUICK_PREFIX)
    return [
        row
        for table in build([], load_published())
        for block in table.blocks
        if block.task == record.task and (protocol == block.protocol or protocol.startswith(f"{block.protocol}:"))
        for row in block.rows
    ]


def _table(block: Block, rows: Sequence[Row], ranked: bool) -> RichTable:
    view = RichTable(title=escape(block.title), title_justify="left")
    metrics = block.metrics.items()
    heads = ("", "Rank", "Method", "Architecture", "Pre-training", *(metric_heading(m) for _, m in metrics))
    for head in (*heads, *(("Gap to best",) if ranked else ()), "Source"):
        view.add_column(escape(head))
    for row in rows:
        numbers = [format_value(row.values.get(name), metric, exact=not row.measured) for name, metric in metrics]
        trained = row.pretrain_data or "–"
        if row.pretrain_epochs:
            trained += f", {row.pretrain_epochs:g} epochs"
        rank = str(row.rank) if ranked and row.rank else "–"
        cells = [MARK if row.measured else "", rank, method_label(row), row.arch or "–", trained, *numbers]
        cells += [format_gap(row, block.metrics[block.primary])] if ranked else []
        cells.append("this run" if row.measured else _sources(row))
        view.add_row(*map(escape, cells), style="bold" if row.measured else "dim")
    return view


def _sources(row: Row) -> str:
    more = f" and {len(row.sources) - 1} more" if len(row.sources) > 1 else ""
    return f"{row.sources[0]}{more}" if row.sources else "–"


def _sentence(block: Block, rows: Sequence[Row], ranked: bool, quick: bool) -> str:
    own = next(row for row in rows if row.measured)
    metric = block.metrics[block.primary]
    value = f"{metric.label} {format_value(own.values[block.primary], metric)} {metric.unit}".rstrip()
    if ranked:
        scored = sum(row.rank is not None for row in rows)
        return f"{value}: place {own.rank} of {scored} under {block.protocol} on {block.data}"
    if quick:
        return f"{value}: a quick run, which shows that the whole way works; it is not ranked"
    if block.demo:
        return f"{value}: {block.title}; nothing is published for it, so there is no rank"
    return f"{value}: nothing is published for {block.protocol} on {block.data}, so there is no rank"
