"""What all pictures have in common: size, colours, caption, and how they are written."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from emae_mm.fileio import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
"""Okabe and Ito's colours, which people with any colour vision tell apart."""
HEAT = "viridis"
"""Colour map of magnitudes: brighter is more, also in grey."""
DPI = 120
FONT = 8
"""Points; the smallest text is one less."""
LETTERS_AN_INCH = 17
LONGEST_NAME = 22


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches that draws without a display and leaves matplotlib's global state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bare(axis: "Axes") -> None:
    """No ticks and no frame, as around a photograph."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def add_caption(figure: "Figure", caption: str) -> None:
    """Put a caption below the figure, wrapped to its width; lines of the caption stay lines."""
    width = round(figure.get_figwidth() * LETTERS_AN_INCH)
    lines = [line for given in caption.splitlines() for line in textwrap.wrap(given, width)]
    figure.supxlabel("\n".join(lines), fontsize=FONT, x=0.01, ha="left", parse_math=False)


def save(figure: "Figure", path: str | Path) -> None:
    """Write the figure as PNG, atomically; the bytes depend on the content only."""
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None}))


def short(name: str) -> str:
    """A class name that fits beside an axis, with dollar signs that matplotlib does not take for mathematics."""
    fitting = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1].rstrip()}…"
    return fitting.replace("$", r"\$")
