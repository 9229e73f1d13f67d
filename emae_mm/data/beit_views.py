"""What BEiT-style pre-training (CAE) needs of an image: one crop in two sizes, and a mask of blocks.

mmpretrain has both; these correct where its versions give other data than BEiT's and CAE's releases.
"""

import math

import mmcv
import numpy as np
from mmpretrain.datasets.transforms import BEiTMaskGenerator, RandomResizedCrop

from emae_mm.errors import ConfigError
from emae_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizedCropTwoSizes(RandomResizedCrop):
    """One random crop in two sizes: ``img`` becomes a list of the encoder's and the tokenizer's image.

    mmpretrain's ``RandomResizedCropAndInterpolationWithTwoPic`` resizes with OpenCV, which does not filter when it
    shrinks, so that the tokenizer sees aliasing; the releases resize with Pillow, and so does this.

    Args:
        scale: size of the first image in pixels, (height, width) or one number for both.
        second_scale: size of the second image, likewise.
        second_interpolation: of the second image, by mmcv's names.
        **kwargs: as in mmpretrain's ``RandomResizedCrop``.
    """

    def __init__(self, scale, second_scale, second_interpolation: str = "lanczos", **kwargs):
        kwargs = {"crop_ratio_range": (0.08, 1.0), "interpolation": "bicubic", "backend": "pillow", **kwargs}
        super().__init__(scale, **kwargs)
        self.second_scale = (second_scale, second_scale) if isinstance(second_scale, int) else tuple(second_scale)
        self.second_interpolation = second_interpolation

    def transform(self, results: dict) -> dict:
        """Replace ``img`` ((H, W, 3), uint8) by two images of the same crop."""
        top, left, height, width = self.rand_crop_params(results["img"])
        crop = np.ascontiguousarray(results["img"][top : top + height, left : left + width])
        results["img"] = [
            mmcv.imresize(crop, size[::-1], interpolation=interpolation, backend=self.backend)
            for size, interpolation in (
                (self.scale, self.interpolation),
                (self.second_scale, self.second_interpolation),
            )
        ]
        results["img_shape"] = results["img"][0].shape[:2]
        return results


@TRANSFORMS.register_module()
class BlockMask(BEiTMaskGenerator):
    """A mask of rectangular blocks with an exact number of hidden patches, set as ``mask`` ((H, W) int, 1 = hidden).

    mmpretrain's generator draws a block's corner from a range that ends one too early, so that it never hides the last
    row and column of patches (27 of 14x14); the releases hide them, and so does this.

    Args:
        input_size: patches, (height, width) or one number for both.
        num_masking_patches: hidden patches of every image.
        min_num_patches: smallest block.
        **kwargs: as in mmpretrain's ``BEiTMaskGenerator``.

    Raises:
        ConfigError: no patch would stay visible, or a smallest block larger than the mask.
    """

    def __init__(self, input_size, num_masking_patches: int, min_num_patches: int = 16, **kwargs):
        size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
        if not 0 < min_num_patches <= num_masking_patches < math.prod(size):
            raise ConfigError(
                f"BlockMask: num_masking_patches={num_masking_patches} and min_num_patches={min_num_patches} do not "
                f"fit a grid of {size[0]}x{size[1]} patches",
                f"use 0 < min_num_patches <= num_masking_patches < {math.prod(size)}",
            )
        super().__init__(size, num_masking_patches, min_num_patches=min_num_patches, **kwargs)

    def _mask(self, mask: np.ndarray, max_mask_patches: int) -> int:
        """Hide one more block of at most ``max_mask_patches`` new patches, in place; how many are new."""
        for _ in range(10):  # attempts, as in the releases; the caller goes on until the number is exact
            area = np.random.uniform(self.min_num_patches, max_mask_patches)
            aspect = math.exp(np.random.uniform(*self.log_aspect_ratio))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= self.height or width >= self.width:
                continue
            top = np.random.randint(0, self.height - height + 1)
            left = np.random.randint(0, self.width - width + 1)
            block = mask[top : top + height, left : left + width]
            new = int(block.size - block.sum())
            if 0 < new <= max_mask_patches:
                block[:] = 1
                return new
        return 0
