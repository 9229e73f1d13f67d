"""Paper tables as Markdown, CSV, HTML and on the terminal."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from emae_mm.fileio import write_text
from emae_mm.leaderboard.metrics import info
from emae_mm.leaderboard.paper_tables import PaperTable
from emae_mm.leaderboard.rows import Value
from emae_mm.leaderboard.schema import DEMO_DATA
from emae_mm.leaderboard.tables import DEMO_LABEL
from emae_mm.leaderboard.text import escape
from emae_mm.leaderboard.view import format_value, metric_heading, relative_link

MISSING = "not measured"
CSV_COLUMNS = (
    "table", "row", "run", "published_epochs", "epochs", "metric", "unit", "measured", "std", "n", "published",
    "published_source", "demonstration", "records",
)  # fmt: skip


def paper_headers(table: PaperTable) -> list[str]:
    """Column headings: the row's name, measured and published for each number of epochs, then the pre-training's."""
    pairs = [
        head
        for epochs in table.spec.epochs
        for head in (f"{epochs:g} epochs, measured{_really(table, epochs)}", f"{epochs:g} epochs, published")
    ]
    return [metric_heading(table.metric), *pairs, *(metric_heading(info(name)) for name in _pretrain_columns(table))]


def _really(table: PaperTable, epochs: float) -> str:
    return "" if table.epoch_scale == 1 else f" at {epochs * table.epoch_scale:g}"


def _pretrain_columns(table: PaperTable) -> list[str]:
    return [name for name in table.spec.pretrain_metrics for _ in table.spec.epochs]


def paper_lines(table: PaperTable) -> list[list[str]]:
    """The table's rows as text, in the order of :func:`paper_headers`; a cell nobody measured says so."""
    lines = []
    for row, cells in zip(table.spec.rows, table.cells, strict=True):
        line = [row.label]
        for cell in cells:
            line.append(format_value(cell.measured, table.metric) if cell.measured else MISSING)
            value = Value(cell.published.value) if cell.published else None
            line.append(format_value(value, table.metric, exact=True))
        for name in table.spec.pretrain_metrics:
            line += [format_value(cell.pretrain.get(name), info(name)) for cell in cells]
        lines.append(line)
    return lines


def is_demo(table: PaperTable) -> bool:
    """Whether a measured cell comes from the embedded demonstration data."""
    return any(found.record.data == DEMO_DATA for found in table.runs)


def paper_markdown(tables: Iterable[PaperTable], title: str) -> str:
    """All tables as GitHub-flavoured Markdown."""
    parts = [f"# {escape(title)}"]
    for table in tables:
        heads = [escape(head) for head in paper_headers(table)]
        body = [[escape(text) for text in line] for line in paper_lines(table)]
        parts.append(f"## {escape(table.spec.title)}{f' ({DEMO_LABEL})' if is_demo(table) else ''}")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *body)))
        parts.append("\n".join(f"- {escape(note)}" for note in table.notes()))
    return "\n\n".join(parts) + "\n"


def paper_csv(tables: Iterable[PaperTable], out: Path) -> str:
    """One line a cell, exact values; links to records are relative to the folder ``out``."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        shared = {
            "table": table.spec.title,
            "metric": table.spec.metric,
            "unit": table.metric.unit,
            "demonstration": DEMO_LABEL if is_demo(table) else "",
        }
        for row, cells in zip(table.spec.rows, table.cells, strict=True):
            for cell in cells:
                line = {"row": row.label, "run": row.run, "published_epochs": f"{cell.epochs:g}"}
                line |= {"epochs": f"{cell.epochs * table.epoch_scale:g}"}
                line |= {"records": "; ".join(relative_link(found.path, out) for found in cell.runs)}
                if cell.measured:
                    line |= {"measured": repr(cell.measured.mean), "n": cell.measured.n}
                    line |= {"std": "" if cell.measured.std is None else repr(cell.measured.std)}
                if cell.published:
                    source = f"{cell.published.source}, {cell.published.source_table}"
                    line |= {"published": repr(cell.published.value), "published_source": source}
                writer.writerow(shared | line)
    return buffer.getvalue()


def paper_html(tables: Iterable[PaperTable], title: str, out: Path) -> str:
    """One page in the leaderboard's look that loads nothing from anywhere; measured cells link to their records."""
    from emae_mm.leaderboard.page import template

    views = []
    for table in tables:
        links = [
            [[(found.record.seed, relative_link(found.path, out)) for found in cell.runs] for cell in cells]
            for cells in table.cells
        ]
        views.append(
            {
                "title": table.spec.title,
                "demo": is_demo(table),
                "headers": paper_headers(table),
                "lines": list(zip(paper_lines(table), links, strict=True)),
                "notes": table.notes(),
            }
        )
    return template("paper_tables.html.j2").render(title=title, tables=views, demo_label=DEMO_LABEL)


def print_paper_tables(tables: Iterable[PaperTable], console=None) -> None:
    """Print every table with its notes.

    Args:
        tables: from ``build_paper_tables``.
        console: a ``rich.console.Console``; a new one on standard output if None.
    """
    from rich.console import Console
    from rich.markup import escape as rich_escape
    from rich.table import Table as RichTable

    console = console or Console()
    for table in tables:
        label = f" ({DEMO_LABEL})" if is_demo(table) else ""
        view = RichTable(title=rich_escape(f"{table.spec.title}{label}"), title_justify="left")
        for head in paper_headers(table):
            view.add_column(rich_escape(head), overflow="fold")
        for line in paper_lines(table):
            view.add_row(*map(rich_escape, line))
        console.print(view)
        for note in table.notes():
            console.print(f"  {note}", markup=False, highlight=False)


def write_paper_tables(tables: Sequence[PaperTable], out: str | Path, title: str) -> list[Path]:
    """Write ``tables.md``, ``tables.csv`` and ``tables.html`` into the folder ``out``, each atomically."""
    out = Path(out)
    contents = {
        "tables.md": paper_markdown(tables, title),
        "tables.csv": paper_csv(tables, out),
        "tables.html": paper_html(tables, title, out),
    }
    for name, content in contents.items():
        write_text(out / name, content)
    return [out / name for name in contents]
