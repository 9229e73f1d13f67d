"""Handwritten digits as objects on crops of photographs."""

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from PIL import Image

from emae_mm.data.demo.sources import Sources

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_CONTRAST = 0.35  # least difference between a digit's luminance and that of what is behind it, of 1
_ROTATION = 12.0  # degrees either way
_CROP = (1.0, 3.0)  # side of the photograph's crop in sides of the scene
_INK = 0.35  # of the brightest stroke: the outline of a digit
_SOFTNESS = 0.12  # half the width, in ink, of the blended edge
_OVERLAP = 0.05  # of the smaller box


@dataclass
class Scene:
    """One image and the truth about it.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        digits: class 0..9 of each object.
        masks: (N, H, W) bool, its visible pixels.
        edges: (H, W) bool, the blended border of the objects, which belongs to neither side for certain.
    """

    image: np.ndarray
    digits: list[int]
    masks: np.ndarray
    edges: np.ndarray


def make_scene(
    sources: Sources,
    rng: np.random.Generator,
    size: int,
    digits: list[int],
    sides: tuple[float, float],
    dimming: tuple[float, float],
) -> Scene:
    """Draw one scene.

    Args:
        sources: where photographs and digits are taken from.
        rng: all random choices are drawn from it.
        size: side of the square scene in pixels.
        digits: the class of each object; one that finds no free place is left out, but never the first.
        sides: least and greatest side of an object in pixels.
        dimming: least and greatest share of its brightness that the photograph keeps, so that light digits stand out.
    """
    canvas = _background(sources, rng, size, dimming)
    boxes, kept, alphas = [], [], []
    for digit in digits:
        alpha = _glyph(sources, rng, digit, round(rng.uniform(*sides)))
        place = _place(rng, size, alpha.shape, boxes)
        if place is None:
            continue
        top, left = place
        height, width = alpha.shape
        window = canvas[top : top + height, left : left + width]
        colour = _colour(rng, float((window @ _LUMA).mean()))
        window += alpha[..., None] * (colour - window)
        boxes.append((top, left, height, width))
        kept.append(digit)
        full = np.zeros((size, size), dtype=np.float32)
        full[top : top + height, left : left + width] = alpha
        alphas.append(full)
    masks, edges = _visible(np.stack(alphas))
    return Scene(np.round(255 * canvas).astype(np.uint8), kept, masks, edges)


def _background(sources: Sources, rng: np.random.Generator, size: int, dimming: tuple[float, float]) -> np.ndarray:
    """A darkened crop of a random photograph, mirrored half of the time: (size, size, 3) float32 in 0..1."""
    photograph = sources.photographs[rng.integers(len(sources.photographs))]
    side = min(rng.uniform(*_CROP) * size, *photograph.size)
    left, top = (rng.uniform(0, extent - side) for extent in photograph.size)
    crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
    array = np.asarray(crop, dtype=np.float32) * (np.float32(rng.uniform(*dimming)) / 255)
    return np.ascontiguousarray(array[:, ::-1] if rng.random() < 0.5 else array)


def _glyph(sources: Sources, rng: np.random.Generator, digit: int, side: int) -> np.ndarray:
    """A handwritten digit enlarged to a tight box of about ``side`` pixels: (H, W) float32 opacity in 0..1."""
    choice = rng.choice(np.flatnonzero(sources.digits == digit))
    ink = Image.fromarray(np.pad(sources.strokes[choice], 2))
    large = ink.resize((2 * side, 2 * side), Image.Resampling.BICUBIC)
    turned = np.asarray(large.rotate(rng.uniform(-_ROTATION, _ROTATION), Image.Resampling.BICUBIC))
    rows, columns = (np.flatnonzero((turned > _INK).any(axis)) for axis in (1, 0))
    tight = Image.fromarray(turned[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = side / max(tight.size)
    shape = tuple(max(3, round(extent * scale)) for extent in tight.size)
    ink = np.asarray(tight.resize(shape, Image.Resampling.BICUBIC))
    return np.clip((ink - _INK + _SOFTNESS) / (2 * _SOFTNESS), 0, 1)


def _place(rng: np.random.Generator, size: int, shape: tuple[int, int], boxes: list) -> tuple[int, int] | None:
    """Top and left of a place inside the scene that hardly overlaps the boxes there; None after 20 attempts."""
    height, width = shape
    for _ in range(20):
        top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
        for other_top, other_left, other_height, other_width in boxes:
            down = min(top + height, other_top + other_height) - max(top, other_top)
            across = min(left + width, other_left + other_width) - max(left, other_left)
            if max(down, 0) * max(across, 0) > _OVERLAP * min(height * width, other_height * other_width):
                break
        else:
            return top, left
    return None


def _colour(rng: np.random.Generator, behind: float) -> np.ndarray:
    """A random light colour that stands out from the mean luminance behind it: (3,) float32 in 0..1."""
    for _ in range(20):
        colour = np.array(hsv_to_rgb(rng.random(), rng.uniform(0, 0.6), rng.uniform(0.85, 1)), dtype=np.float32)
        if float(colour @ _LUMA) - behind >= _CONTRAST:
            return colour
    return np.ones(3, dtype=np.float32)


def _visible(alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of what is seen of each object, later ones lying on earlier ones, and the blended edges."""
    solid = alphas > 0.5
    covered = np.zeros(alphas.shape[1:], dtype=bool)
    masks = np.empty_like(solid)
    for index in reversed(range(len(solid))):
        masks[index] = solid[index] & ~covered
        covered |= solid[index]
    top = alphas.max(axis=0)
    return masks, (top > 0.25) & (top < 0.75)
