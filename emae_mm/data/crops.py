"""Random crops that mmpretrain does not have."""

import math

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmpretrain.datasets.transforms import RandomResizedCrop

from emae_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizedCropOnce(RandomResizedCrop):
    """Random resized crop that draws area and aspect ratio once and clips the box to the image.

    mmpretrain's (and torchvision's) draw again until the box fits into the image. The linear probe of the MAE release
    does not, following BYOL: wide and tall boxes are cut, and no large area is ever drawn again.

    Args:
        scale: output size in pixels, (height, width) or one number for both.
        crop_ratio_range: range of the box's area over the image's, before clipping.
        aspect_ratio_range: range of width over height, before clipping; drawn uniformly in its logarithm.
        interpolation: as in mmpretrain.
        backend: as in mmpretrain.
    """

    def __init__(self, scale, crop_ratio_range=(0.08, 1.0), aspect_ratio_range=(3 / 4, 4 / 3), **kwargs):
        super().__init__(scale, crop_ratio_range, aspect_ratio_range, max_attempts=1, **kwargs)

    @cache_randomness
    def rand_crop_params(self, img: np.ndarray) -> tuple[int, int, int, int]:
        """The box for an image (H, W, C): (top, left, height, width) in pixels, at least 1x1."""
        height, width = img.shape[:2]
        area = np.random.uniform(*self.crop_ratio_range) * height * width
        aspect = math.exp(np.random.uniform(*np.log(self.aspect_ratio_range)))
        box_width = min(max(round(math.sqrt(area * aspect)), 1), width)
        box_height = min(max(round(math.sqrt(area / aspect)), 1), height)
        top = np.random.randint(0, height - box_height + 1)
        left = np.random.randint(0, width - box_width + 1)
        return top, left, box_height, box_width
