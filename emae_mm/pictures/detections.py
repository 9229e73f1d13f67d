"""Detected objects beside the ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from emae_mm.pictures.figure import COLOURS, FONT, add_caption, bare, new_figure, save, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OPACITY = 0.45
_CORNERS = (
    (0, 1, "left", "bottom"), (0, 1, "left", "top"), (2, 1, "right", "bottom"), (2, 3, "right", "bottom"),
    (0, 3, "left", "top"), (0, 3, "left", "bottom"), (2, 1, "right", "top"), (2, 3, "right", "top"),
)  # fmt: skip
"""Where a label may stand: x and y of the box it hangs on, and its alignment there; the first that is free is taken."""


@dataclass(frozen=True)
class Instances:
    """Objects of one image.

    Attributes:
        boxes: (n, 4) x1, y1, x2, y2 in pixels.
        labels: (n,) class indices.
        masks: (n, H, W) bool, or None.
        scores: (n,) 0..1, or None for the ground truth.
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    scores: np.ndarray | None = None

    def above(self, threshold: float) -> "Instances":
        """Those with at least this score, the highest first."""
        order = np.argsort(-self.scores, kind="stable")
        order = order[self.scores[order] >= threshold]
        masks = None if self.masks is None else self.masks[order]
        return Instances(self.boxes[order], self.labels[order], masks, self.scores[order])


@dataclass(frozen=True)
class DetectionSample:
    """An image, (H, W, 3) uint8 RGB, with its true and its detected objects."""

    image: np.ndarray
    truth: Instances
    detected: Instances


def with_masks(image: np.ndarray, instances: Instances, colour_of: dict[int, str]) -> np.ndarray:
    """The image with the objects' masks laid over it: (H, W, 3) uint8 RGB."""
    from torchvision.utils import draw_segmentation_masks

    if instances.masks is None or not len(instances.masks):
        return image
    drawn = draw_segmentation_masks(
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        torch.from_numpy(np.ascontiguousarray(instances.masks.astype(bool))),
        alpha=OPACITY,
        colors=[colour_of[int(label)] for label in instances.labels],
    )
    return drawn.permute(1, 2, 0).numpy()


def draw_detections(
    samples: Sequence[DetectionSample],
    classes: Sequence[str],
    path: str | Path,
    caption: str = "",
    threshold: float = 0.5,
) -> None:
    """Ground truth and detections side by side, one image a row, with class names and scores.

    A label that fits nowhere without covering another is left out; the caption says how many, and the threshold.

    Args:
        samples: images with their objects.
        classes: names.
        path: the PNG.
        caption: shown below.
        threshold: least score of a detection that is shown.
    """
    from matplotlib.patches import Rectangle

    pairs = [(sample.truth, sample.detected.above(threshold)) for sample in samples]
    present = sorted({int(label) for pair in pairs for one in pair for label in one.labels})
    colour_of = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(present)}
    ratios = [sample.image.shape[0] / sample.image.shape[1] for sample in samples]
    width = 3.7 if min(ratios) < 0.9 else 2.9
    heights = [min(width * ratio, width) for ratio in ratios]
    figure = new_figure(2 * width + 0.2, sum(heights) + 0.9)
    axes = figure.subplots(len(samples), 2, squeeze=False, gridspec_kw=dict(height_ratios=heights))
    for axis, title in zip(axes[0], ("ground truth", "detected"), strict=True):
        axis.set_title(title, fontsize=FONT + 1)
    for row, sample, pair in zip(axes, samples, pairs, strict=True):
        for axis, instances in zip(row, pair, strict=True):
            bare(axis)
            axis.imshow(with_masks(sample.image, instances, colour_of), interpolation="nearest")
            for (x1, y1, x2, y2), label in zip(instances.boxes, instances.labels, strict=True):
                for edge, line in (("black", 2.4), (colour_of[int(label)], 1.4)):
                    box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=edge, linewidth=line)
                    axis.add_patch(box)

    def describe(left_out: str) -> None:
        rule = f"Detections with a score of at least {threshold:g}. {left_out}".strip()
        add_caption(figure, "\n".join(filter(None, [rule, caption])))

    describe("Labels left out for want of room: 00.")  # keeps the room of that line
    figure.draw_without_rendering()  # the layout is settled before labels look for their places
    figure.set_layout_engine("none")
    left_out = sum(
        _add_labels(axis, one, classes, colour_of)
        for row, pair in zip(axes, pairs, strict=True)
        for axis, one in zip(row, pair, strict=True)
    )
    describe(f"Labels left out for want of room: {left_out}." if left_out else "")
    save(figure, path)


def _add_labels(axis: "Axes", instances: Instances, classes: Sequence[str], colour_of: dict[int, str]) -> int:
    """Write the objects' labels where they cover no other; returns how many found no place."""
    if not len(instances.boxes):
        axis.text(0.02, 0.98, "none", transform=axis.transAxes, ha="left", va="top", fontsize=FONT,
                  bbox=dict(boxstyle="square,pad=0.2", facecolor="white", edgecolor="none"))  # fmt: skip
    taken, left_out = [], 0
    for index, (box, label) in enumerate(zip(instances.boxes, instances.labels, strict=True)):
        score = "" if instances.scores is None else f" {instances.scores[index]:.2f}"
        colour = colour_of[int(label)]
        text = axis.text(
            0, 0, f"{short(classes[int(label)])}{score}", fontsize=FONT - 1, color=_ink(colour),
            bbox=dict(boxstyle="square,pad=0.15", facecolor=colour, edgecolor="none"),
        )  # fmt: skip
        for x, y, horizontal, vertical in _CORNERS:
            text.set(position=(box[x] - 0.5, box[y] - 0.5), ha=horizontal, va=vertical)
            extent = text.get_window_extent().padded(2)
            inside = axis.bbox.x0 - 2 <= extent.x0 and extent.x1 <= axis.bbox.x1 + 2
            inside &= axis.bbox.y0 - 2 <= extent.y0 and extent.y1 <= axis.bbox.y1 + 2
            if inside and not any(extent.overlaps(other) for other in taken):
                taken.append(extent)
                break
        else:
            text.remove()
            left_out += 1
    return left_out


def _ink(colour: str) -> str:
    """Black or white, whichever is easier to read on a colour."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "white"
