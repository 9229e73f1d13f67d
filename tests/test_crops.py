"""The probe's crop draws once and clips."""

import numpy as np
import pytest

from emae_mm.data.crops import RandomResizedCropOnce


def boxes(transform, shape, count):
    image = np.zeros((*shape, 3), np.uint8)
    return np.array([transform.rand_crop_params(image) for _ in range(count)])


@pytest.mark.parametrize("shape", [(64, 64), (40, 200), (3, 500), (1, 1)])
def test_boxes_lie_inside_and_the_output_has_its_size(shape):
    np.random.seed(0)
    transform = RandomResizedCropOnce(16, interpolation="bicubic", backend="pillow")
    top, left, height, width = boxes(transform, shape, 500).T
    assert (top >= 0).all() and (left >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= shape[0]).all() and (left + width <= shape[1]).all()
    image = np.random.randint(0, 256, (*shape, 3), dtype=np.uint8)
    assert transform(dict(img=image))["img"].shape == (16, 16, 3)


def test_area_and_aspect_are_drawn_once_and_clipped():
    """Against the same two draws made by hand; a loop that draws again would need more of them."""
    transform = RandomResizedCropOnce(16, crop_ratio_range=(0.5, 1.0))
    np.random.seed(7)
    found = boxes(transform, (60, 90), 200)[:, 2:]
    np.random.seed(7)
    clipped = 0
    for height, width in found:
        area = np.random.uniform(0.5, 1.0) * 60 * 90
        aspect = np.exp(np.random.uniform(np.log(3 / 4), np.log(4 / 3)))
        wanted = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        assert (height, width) == (min(wanted[0], 60), min(wanted[1], 90))
        clipped += wanted[0] > 60 or wanted[1] > 90
        np.random.randint(0, 60 - height + 1), np.random.randint(0, 90 - width + 1)
    assert clipped > 20, "the case that a loop would draw again does occur"
