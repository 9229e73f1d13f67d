"""A bar chart of a block's measured rows, as an SVG element for the page."""

import io
import re
from html import escape

from emae_mm.leaderboard.tables import Block
from emae_mm.leaderboard.view import format_epochs, method_label, metric_heading

_INK = "#010203"
"""Drawn in this colour, text and axes take on the page's own colour."""

_BAR = "#3b82c4"


def bar_chart(block: Block) -> str:
    """Horizontal bars of the ranking metric, best on top, with one standard error where it is known.

    Returns:
        An ``<svg>`` element without outside references, identifiers of groups or metadata, or an empty string where no
        measured row has the metric.
    """
    name = block.primary
    rows = [row for row in block.measured if name in row.values]
    if not rows:
        return ""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    noises = [row.noise(block.task, block.data, name) for row in rows]
    errors = [noise.error if noise else 0.0 for noise in noises]
    labels = [f"{method_label(row)}, {row.arch}, {format_epochs(row.pretrain_epochs)} ep." for row in rows]
    salt = f"{block.task}/{block.protocol}/{block.data}"
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(6.4, 0.7 + 0.32 * len(rows)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        positions = range(len(rows) - 1, -1, -1)
        means = [row.values[name].mean for row in rows]
        axes.barh(positions, means, xerr=errors, color=_BAR, ecolor=_INK, capsize=3, height=0.65)
        axes.set_yticks(positions, labels, color=_INK)
        axes.tick_params(colors=_INK)
        axes.set_xlabel(metric_heading(block.metrics[name]), color=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        buffer = io.StringIO()
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    return _inline(buffer.getvalue(), metric_heading(block.metrics[name]))


def _inline(document: str, title: str) -> str:
    """The ``<svg>`` element of a document, scaled to its container and in the page's text colour."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same group names in every chart would clash on the page
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
    return svg.replace(_INK, "currentColor").strip()
