"""The leaderboard as Markdown, as CSV and on the terminal."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from emae_mm.leaderboard.metrics import info
from emae_mm.leaderboard.rows import Row
from emae_mm.leaderboard.tables import DEMO_LABEL, Block, Table
from emae_mm.leaderboard.view import (
    NOISE_RULE,
    RANKING_RULE,
    UNRANKED,
    Line,
    format_gap,
    format_value,
    headers,
    lines,
    method_label,
    metric_heading,
    run_links,
    table_notes,
)

CSV_COLUMNS = (
    "task", "protocol", "data", "demonstration", "kind", "rank", "method", "variant", "arch", "pretrain_data",
    "pretrain_epochs", "metric", "unit", "value", "std", "n", "gap_to_best", "gap_mark", "noise_source", "sources",
    "records", "config_sha256", "encoder_sha256", "notes",
)  # fmt: skip


def markdown(tables: Iterable[Table], out: Path) -> str:
    """All tables as GitHub-flavoured Markdown; links are relative to the folder ``out``."""
    parts = ["# Leaderboard", RANKING_RULE, NOISE_RULE]
    for table in tables:
        notes = table_notes(table)
        parts.append(f"## {escape(table.title)}")
        for block in table.blocks:
            parts.append(f"### {escape(block.title)}")
            parts.append(_markdown_block(block, out, notes))
            if not block.ranked:
                parts.append(UNRANKED)
        if notes:
            parts.append("Notes:")
            parts.append("\n".join(f"{number}. {escape(note)}" for number, note in enumerate(notes, 1)))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line, inside a table cell too."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text)


def _markdown_block(block: Block, out: Path, notes: list[str]) -> str:
    heads = [escape(head) for head in headers(block)]
    body = [_markdown_cells(line) for line in lines(block, out, notes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *body))


def _markdown_cells(line: Line) -> list[str]:
    measured = line.kind == "measured"
    links = [f"[{escape(link.label)}]({link.href})" if link.href else escape(link.label) for link in line.links]
    method = f"**{escape(line.method)}**" if measured else escape(line.method)
    return [
        line.rank,
        f"**{line.kind}**" if measured else line.kind,
        method,
        escape(line.arch),
        escape(line.pretrain_data),
        line.epochs,
        *line.metrics,
        line.seeds,
        line.gap,
        "<br>".join([*links, *map(escape, line.sources)]),
        ", ".join(map(str, line.notes)),
    ]


def csv_text(tables: Iterable[Table], out: Path) -> str:
    """One line for each number of each row, those under a lost heading included."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for block in table.blocks:
            for row in block.rows:
                writer.writerows(_csv_lines(block, row, out))
    return buffer.getvalue()


def _csv_lines(block: Block, row: Row, out: Path) -> Iterable[dict[str, object]]:
    records = [link.href for link in run_links(row, out) if link.label.startswith("record ")]
    shared = {
        "task": block.task,
        "protocol": block.protocol,
        "data": block.data,
        "demonstration": DEMO_LABEL if block.demo else "",
        "kind": row.kind,
        "method": row.method,
        "variant": row.variant,
        "arch": row.arch,
        "pretrain_data": row.pretrain_data,
        "pretrain_epochs": "" if row.pretrain_epochs is None else f"{row.pretrain_epochs:g}",
        "sources": "; ".join(row.sources),
        "records": "; ".join(records),
        "config_sha256": "; ".join(found.record.config.sha256 for found in row.runs),
        "encoder_sha256": "; ".join(found.record.encoder.sha256 for found in row.runs if found.record.encoder),
        "notes": "; ".join(row.notes),
    }
    for name, value in row.values.items():
        line = shared | {"metric": name, "unit": block.metrics.get(name, info(name)).unit, "value": repr(value.mean)}
        line |= {"std": "" if value.std is None else repr(value.std), "n": value.n}
        if name == block.primary:
            noise = row.noise(block.task, block.data, name)
            line |= {"rank": row.rank or "", "gap_to_best": "" if row.gap is None else f"{row.gap:.6g}"}
            line |= {"gap_mark": row.mark, "noise_source": noise.source if noise else ""}
        yield line


def print_summary(tables: Iterable[Table], console=None) -> None:
    """Print the blocks that hold measured rows, each with the published rows that rank next to a measured one.

    Args:
        tables: from ``build``.
        console: a ``rich.console.Console``; a new one on standard output if None.
    """
    from rich.console import Console
    from rich.markup import escape as rich_escape
    from rich.table import Table as RichTable

    console = console or Console()
    for table in tables:
        for block in table.blocks:
            if not block.measured:
                continue
            view = RichTable(title=rich_escape(f"{table.title}: {block.title}"), title_justify="left")
            for head in ("Rank", "Kind", "Method", "Pre-training", *map(metric_heading, block.metrics.values()), "Gap"):
                view.add_column(rich_escape(head))
            for row in _with_neighbours(block):
                numbers = [format_value(row.values.get(name), m, not row.measured) for name, m in block.metrics.items()]
                trained = row.pretrain_data or "–"
                if row.pretrain_epochs:
                    trained += f", {row.pretrain_epochs:g} epochs"
                gap = format_gap(row, block.metrics[block.primary])
                cells = [str(row.rank or "–"), row.kind, method_label(row), trained, *numbers, gap]
                view.add_row(*map(rich_escape, cells), style="bold" if row.measured else "dim")
            console.print(view)


def _with_neighbours(block: Block) -> list[Row]:
    """Measured rows and, in a ranked block, the published rows directly above or below one."""
    near = set()
    for index, row in enumerate(block.rows):
        if row.measured:
            near |= {index - 1, index, index + 1} if block.ranked else {index}
    return [row for index, row in enumerate(block.rows) if index in near]
