"""The leaderboard as one HTML page that loads nothing from anywhere."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from emae_mm.errors import UserError
from emae_mm.leaderboard.gallery import galleries
from emae_mm.leaderboard.plot import bar_chart
from emae_mm.leaderboard.tables import DEMO_LABEL, Table
from emae_mm.leaderboard.view import NOISE_RULE, RANKING_RULE, UNRANKED, headers, lines, table_notes

TEMPLATES = Path(__file__).with_name("templates")

MIME_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def html(tables: Iterable[Table], out: Path, figures: Sequence[tuple[str, str | Path]] = ()) -> str:
    """The page; links are relative to the folder ``out``, figures (title, PNG, JPEG or SVG file) are embedded.

    Raises:
        UserError: a figure does not exist or is of another format.
    """
    views = [_table_view(table, out) for table in tables]
    return template("leaderboard.html.j2").render(
        tables=views,
        figures=[(title, _data_uri(Path(path))) for title, path in figures],
        ranking_rule=RANKING_RULE,
        noise_rule=NOISE_RULE,
        unranked=UNRANKED,
        demo_label=DEMO_LABEL,
        any_demo=any(block["demo"] for view in views for block in view["blocks"]),
    )


def template(name: str):
    """A page's template; what is filled in is escaped, and nothing may be left out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _table_view(table: Table, out: Path) -> dict:
    notes = table_notes(table)
    blocks = [
        {
            "protocol": block.protocol,
            "data": block.data,
            "demo": block.demo,
            "ranked": block.ranked,
            "measured": bool(block.measured),
            "headers": headers(block),
            "lines": lines(block, out, notes),
            "plot": bar_chart(block),
            "galleries": galleries(block),
        }
        for block in table.blocks
    ]
    return {"title": table.title, "task": table.task, "blocks": blocks, "notes": notes}


def _data_uri(path: Path) -> str:
    mime = MIME_TYPES.get(path.suffix.lower())
    if mime is None:
        raise UserError(f"figure {path} is of no known format", f"use one of {', '.join(MIME_TYPES)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"figure {path} cannot be read ({error.strerror})", "check the path") from error
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
