"""Checking the masks of COCO-format data: every polygon's and run length's form, before hours are spent."""

from collections.abc import Callable

import numpy as np

from emae_mm.data.checks.report import DataReport
from emae_mm.data.offenders import listed, refuse

MIN_NUMBERS = 6
"""x, y of three corners; pycocotools takes four numbers for a box and fails on fewer."""
# Annotation tools leave a few polygons of one or two points among many; mmdet does not use them.
TOLERATED = 1e-4
_MEND = "mend or remove these annotations"


def check_masks(annotations: list[dict], images: dict[int, dict], path, report: DataReport) -> None:
    """Every annotation has a mask that mmdet and pycocotools can read.

    Args:
        annotations: the file's, with ``image_id`` known to be right.
        images: by their id, with ``file_name``, ``width`` and ``height``.
        path: the annotation file.
        report: gets a note of polygons that are too short where they are too few to matter.

    Raises:
        DataError: masks are missing or cannot be read; annotations and images are named.
    """

    def named(problem_of: Callable[[object, dict], str | None]) -> list[str]:
        found = []
        for item in annotations:
            image = images[item["image_id"]]
            if (problem := problem_of(item.get("segmentation"), image)) is not None:
                found.append(f"annotation {item['id']} of image {image['id']} ({image['file_name']}){problem}")
        return found

    refuse(
        f"{path}: annotations without a 'segmentation', which training and evaluating masks need",
        named(lambda mask, image: None if mask else ""),
        "add the masks, or take a detector without a mask head",
    )
    refuse(f"{path}: masks that are neither polygons nor run lengths", named(_form_problem), _MEND)
    refuse(f"{path}: run-length masks that do not fit their image", named(_runs_problem), _MEND)
    short = named(_polygon_problem)
    if len(short) > TOLERATED * len(annotations):
        refuse(f"{path}: polygons that are not x, y pairs of at least three corners", short, _MEND)
    elif short:
        report.notes.append(f"polygons of less than three corners, which are not used: {listed(short)}")


def _form_problem(mask: object, image: dict) -> str | None:
    if isinstance(mask, dict):
        return None if {"size", "counts"} <= set(mask) else f": a run-length mask with the keys {sorted(mask)}"
    whole = isinstance(mask, list) and all(isinstance(polygon, list) for polygon in mask)
    return None if whole else f": {str(mask)[:40]}"


def _polygon_problem(mask: object, image: dict) -> str | None:
    if isinstance(mask, dict):
        return None
    short = [len(polygon) for polygon in mask if len(polygon) < MIN_NUMBERS or len(polygon) % 2]
    return f": a polygon of {short[0]} numbers" if short else None


def _runs_problem(mask: object, image: dict) -> str | None:
    """What is wrong with a run-length mask, in either of COCO's two forms."""
    if not isinstance(mask, dict):
        return None
    size = [image["height"], image["width"]]
    if list(mask["size"]) != size:
        return f": its [height, width] is {mask['size']}, the image's {size}"
    counts = run_lengths(mask["counts"])
    if counts is None or (counts < 0).any():
        return ": its 'counts' cannot be read"
    if counts.sum() != size[0] * size[1]:
        return f": its 'counts' make {counts.sum()} pixels, the image has {size[0] * size[1]}"
    return None


def run_lengths(counts: object) -> np.ndarray | None:
    """Run lengths, first of zeros, from a list of them or from COCO's compressed text; None if it is neither.

    The text has six bits a character, from ``"0"`` on: five of a little-endian number in two's complement and one that
    says whether it goes on. From the fourth on, numbers are differences to the last but one.
    """
    if isinstance(counts, list):
        return np.array(counts) if counts and all(type(count) is int for count in counts) else None
    if not isinstance(counts, str) or not counts or not counts.isascii():
        return None
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    goes_on = codes & 0x20 > 0
    if (codes < 0).any() or (codes > 0x3F).any() or goes_on[-1]:
        return None
    ends = np.flatnonzero(~goes_on)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() > 8:  # more than 40 bits
        return None
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    numbers -= (codes[ends] & 0x10 > 0) * (np.int64(1) << (5 * (ends - starts + 1)))
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
