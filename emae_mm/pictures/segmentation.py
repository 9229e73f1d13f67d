"""Segmentation maps over their images, in the data set's colours, with a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from emae_mm.pictures.figure import FONT, add_caption, bare, new_figure, save, short

OPACITY = 0.65
LONGEST_LEGEND = 40


@dataclass(frozen=True)
class SegmentationSample:
    """One image with its label maps.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) integers, classes or the value for "not labelled".
        prediction: (H, W) integers, classes.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Sequence[Sequence[int]], opacity: float = OPACITY
) -> np.ndarray:
    """An image with its classes' colours laid over it.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers; values that are no index of the palette stay without colour.
        palette: one RGB colour, 0..255, a class.
        opacity: of the colours, 0..1.

    Returns:
        (H, W, 3) uint8.
    """
    from torchvision.utils import draw_segmentation_masks

    present = [int(value) for value in np.unique(labels) if 0 <= value < len(palette)]
    if not present:
        return image.copy()
    masks = torch.from_numpy(np.stack([labels == value for value in present]))
    drawn = draw_segmentation_masks(
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        masks,
        alpha=opacity,
        colors=[tuple(int(channel) for channel in palette[value]) for value in present],
    )
    return drawn.permute(1, 2, 0).numpy()


def draw_segmentation(
    samples: Sequence[SegmentationSample],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    path: str | Path,
    caption: str = "",
) -> None:
    """Image, ground truth and prediction side by side, one image a row, and the colours of the classes that occur.

    With more than :data:`LONGEST_LEGEND` classes the legend has the largest ones; the caption says how many are left
    out, and whether the ground truth has pixels without label.

    Args:
        samples: images and label maps.
        classes: names.
        palette: one RGB colour, 0..255, a class.
        path: the PNG.
        caption: shown below.
    """
    from matplotlib.patches import Patch

    pixels = np.zeros(len(classes), np.int64)
    for sample in samples:
        for labels in (sample.truth, sample.prediction):
            pixels += np.bincount(labels[(labels >= 0) & (labels < len(classes))], minlength=len(classes))
    present = [int(index) for index in np.argsort(-pixels, kind="stable") if pixels[index]]
    listed, width = sorted(present[:LONGEST_LEGEND]), 2.5
    heights = [width * min(sample.image.shape[0] / sample.image.shape[1], 1.0) for sample in samples]
    figure = new_figure(3 * width + 0.2, sum(heights) + 0.2 * -(-len(listed) // 5) + 1.0)
    axes = figure.subplots(len(samples), 3, squeeze=False, gridspec_kw=dict(height_ratios=heights))
    for axis, title in zip(axes[0], ("image", "ground truth", "prediction"), strict=True):
        axis.set_title(title, fontsize=FONT + 1)
    for row, sample in zip(axes, samples, strict=True):
        shown = [overlay(sample.image, labels, palette) for labels in (sample.truth, sample.prediction)]
        for axis, image in zip(row, (sample.image, *shown), strict=True):
            bare(axis)
            axis.imshow(image, interpolation="nearest")
    handles = [Patch(facecolor=np.asarray(palette[i]) / 255, edgecolor="black", lw=0.5, label=short(classes[i]))
               for i in listed]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper left", ncols=5, fontsize=FONT, frameon=False, handlelength=1.2)
    notes = []
    if any((sample.truth >= len(classes)).any() for sample in samples):
        notes.append("Pixels without colour in the ground truth have no label.")
    if len(present) > len(listed):
        notes.append(f"{len(present) - len(listed)} further classes of few pixels are not in the legend.")
    add_caption(figure, "\n".join(filter(None, [" ".join(notes), caption])))
    save(figure, path)
