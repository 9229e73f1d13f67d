"""Precision over recall in COCO's way, and one number a class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emae_mm.pictures.figure import COLOURS, FONT, add_caption, new_figure, save, short

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

KINDS = {"bbox": "boxes", "segm": "masks"}
MARKERS = ("o", "s", "^")
CLASSES_A_COLUMN = 40
_STYLES = (("IoU ≥ 0.50", "-"), ("IoU ≥ 0.75", "--"), ("mean of IoU 0.50 to 0.95", ":"))


@dataclass(frozen=True)
class PrecisionRecall:
    """What an evaluation of boxes or of masks says of precision.

    Attributes:
        recall: (R,) 0..1.
        precision: (T, R, C) 0..1 for each IoU threshold, recall and class; NaN for classes without an object.
        thresholds: (T,) IoU.
    """

    recall: np.ndarray
    precision: np.ndarray
    thresholds: np.ndarray

    @classmethod
    def of(cls, evaluation: "COCOeval") -> "PrecisionRecall":
        """From a finished evaluation of pycocotools: objects of all sizes, its largest number of detections."""
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        return cls(
            np.asarray(evaluation.params.recThrs),
            np.where(precision < 0, np.nan, precision),
            np.asarray(evaluation.params.iouThrs),
        )

    def curves(self) -> list[np.ndarray]:
        """(R,) precision, the mean over classes: at IoU 0.5, at 0.75, and the mean over all thresholds."""
        at = [self.precision[np.isclose(self.thresholds, value)] for value in (0.5, 0.75)]
        return [_mean(values, (0, 2)) for values in (*at, self.precision)]

    def class_ap(self) -> np.ndarray:
        """(C,) average precision 0..1 over all thresholds; NaN for classes without an object."""
        return _mean(self.precision, (0, 1))


def _mean(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """The mean of what is not NaN; NaN where nothing is."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axes), known.sum(axes)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def draw_precision_recall(kinds: Mapping[str, PrecisionRecall], path: str | Path, caption: str = "") -> None:
    """Precision over recall, one panel for boxes and one for masks; average precision in the legend.

    Args:
        kinds: ``{"bbox": ..., "segm": ...}`` or one of them.
        path: the PNG.
        caption: shown below.
    """
    figure = new_figure(3.7 * len(kinds) + 0.2, 4.0)
    axes = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axis, (kind, found) in zip(axes, kinds.items(), strict=True):
        for curve, (name, line), colour in zip(found.curves(), _STYLES, COLOURS, strict=False):
            label = f"{name}: AP {100 * curve.mean():.1f}"
            axis.plot(found.recall, curve, line, color=colour, label=label, linewidth=1.8)
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.set_title(KINDS.get(kind, kind), fontsize=FONT + 1)
        axis.set_xlabel("recall", fontsize=FONT)
        axis.tick_params(labelsize=FONT)
        axis.grid(color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        # above the curves: below or beside them there is room in no corner for certain
        axis.legend(fontsize=FONT, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    axes[0].set_ylabel("precision, mean over classes", fontsize=FONT)
    add_caption(figure, caption)
    save(figure, path)


def draw_class_values(
    values: Mapping[str, np.ndarray], classes: Sequence[str], path: str | Path, caption: str = "", label: str = "AP"
) -> None:
    """One or several numbers a class, the best class first; classes without an object are counted in the caption.

    Args:
        values: name to (C,) numbers 0..1 or NaN; the first one orders.
        classes: names.
        path: the PNG.
        caption: shown below.
        label: of the axis; shown in per cent.
    """
    first = next(iter(values.values()))
    order = [int(index) for index in np.argsort(-first, kind="stable") if np.isfinite(first[index])]
    columns = max(1, -(-len(order) // CLASSES_A_COLUMN))
    rows = max(1, -(-len(order) // columns))
    figure = new_figure(max(4.8, 2.7 * columns), 0.17 * rows + 1.3)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for column, axis in enumerate(axes):
        part = order[column * rows : (column + 1) * rows]
        for (name, numbers), colour, marker in zip(values.items(), COLOURS, MARKERS, strict=False):
            axis.plot(100 * numbers[part], range(len(part)), marker, color=colour, ms=4, label=name, alpha=0.9)
        axis.set_yticks(range(len(part)), [short(classes[index]) for index in part], fontsize=FONT - 1)
        axis.set(xlim=(-2, 102), ylim=(rows - 0.5, -0.5))
        axis.set_xlabel(f"{label} (%)", fontsize=FONT)
        axis.tick_params(axis="x", labelsize=FONT)
        axis.grid(color="#e3e3e3", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    if len(values) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, fontsize=FONT,
                      frameon=False)  # fmt: skip
    absent = len(classes) - len(order)
    note = f"Left out, as they do not occur in these images: {absent} of {len(classes)} classes." if absent else ""
    add_caption(figure, "\n".join(filter(None, [note, caption])))
    save(figure, path)
