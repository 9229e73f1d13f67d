"""Which classes are taken for which."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emae_mm.pictures.figure import COLOURS, FONT, add_caption, new_figure, save, short

LARGEST_MATRIX = 40
"""Classes; more are drawn as their most confused pairs only."""
LARGEST_WITH_NUMBERS = 12
MOST_PAIRS = 25


def count_confusion(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """How often each class is taken for each.

    Args:
        truth: integers of any shape; values that are no class are left out.
        predicted: integers of the same shape, 0..num_classes-1.
        num_classes: C.

    Returns:
        (C, C) int64, rows the true class, columns the predicted one.
    """
    known = (truth >= 0) & (truth < num_classes)
    cells = truth[known].astype(np.int64) * num_classes + predicted[known].astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, 0..1, from pixel counts (C, C); NaN where a class occurs nowhere."""
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def row_shares(confusion: np.ndarray) -> np.ndarray:
    """Each cell's share of its row, 0..1; NaN in the rows of classes without a sample."""
    totals = confusion.sum(1, keepdims=True)
    return np.divide(confusion, totals, out=np.full(confusion.shape, np.nan), where=totals > 0)


def confused_pairs(confusion: np.ndarray, most: int = MOST_PAIRS) -> list[tuple[int, int, int]]:
    """(true class, predicted class, count) of the most frequent confusions, the most frequent first."""
    errors = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    found = [(int(cell // len(errors)), int(cell % len(errors))) for cell in order]
    return [(true, taken, int(errors[true, taken])) for true, taken in found if errors[true, taken]]


def draw_confusion(
    confusion: np.ndarray, classes: Sequence[str], path: str | Path, caption: str = "", unit: str = "images"
) -> None:
    """The confusion matrix, each row in per cent of its class; for at most :data:`LARGEST_MATRIX` classes.

    Args:
        confusion: (C, C) counts, rows the true class.
        classes: names.
        path: the PNG.
        caption: shown below.
        unit: what is counted.
    """
    shares, count = 100 * row_shares(confusion), len(classes)
    side = max(2.8, min(0.42 * count, 7.5))
    figure = new_figure(side + 2.4, side + 1.9)
    axis = figure.subplots()
    heat = axis.imshow(np.ma.masked_invalid(shares), cmap="cividis", vmin=0, vmax=100)
    size = FONT if count <= 20 else FONT - 1
    names = [short(name) for name in classes]
    axis.set_xticks(range(count), names, rotation=90 if count > 6 or max(map(len, names)) > 6 else 0, fontsize=size)
    axis.set_yticks(range(count), names, fontsize=size)
    axis.set_xlabel("predicted", fontsize=FONT + 1)
    axis.set_ylabel("true class", fontsize=FONT + 1)
    if count <= LARGEST_WITH_NUMBERS:
        for row, column in zip(*np.nonzero(np.isfinite(shares)), strict=True):
            value = shares[row, column]
            axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=FONT,
                      color="black" if value > 50 else "white")  # fmt: skip
    bar = figure.colorbar(heat, ax=axis, shrink=0.8)
    bar.set_label(f"% of the true class's {unit}", fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT)
    add_caption(figure, caption)
    save(figure, path)


def draw_confused_pairs(
    confusion: np.ndarray, classes: Sequence[str], path: str | Path, caption: str = "", unit: str = "images"
) -> None:
    """The most confused pairs as bars: how much of the true class is taken for the other; see :func:`draw_confusion`.

    The pairs are those with the most confusions.
    """
    pairs = confused_pairs(confusion)
    totals = confusion.sum(1)
    figure = new_figure(6.8, max(1.6, 0.22 * len(pairs) + 1.1))
    axis = figure.subplots()
    shares = [100 * count / totals[true] for true, _, count in pairs]
    axis.barh(range(len(pairs)), shares, color=COLOURS[0], height=0.7)
    names = [f"{short(classes[true])} → {short(classes[taken])}" for true, taken, _ in pairs]
    axis.set_yticks(range(len(pairs)), names, fontsize=FONT)
    axis.set_ylim(max(len(pairs), 1) - 0.4, -0.6)
    for place, (share, (_, _, count)) in enumerate(zip(shares, pairs, strict=True)):
        axis.text(share, place, f" {count:,}", va="center", fontsize=FONT - 1)
    axis.set_xlim(0, max([*shares, 1.0]) * 1.18)
    axis.tick_params(axis="x", labelsize=FONT)
    axis.set_xlabel(f"% of the true class's {unit} (number: {unit})", fontsize=FONT)
    axis.spines[["top", "right"]].set_visible(False)
    rule = "The most frequent confusions, true class → predicted class." if pairs else "No confusion."
    add_caption(figure, "\n".join(filter(None, [rule, caption])))
    save(figure, path)
