"""Random erasing as MAE's fine-tuning has it: timm's, in images that are not normalised yet."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from timm.data.random_erasing import RandomErasing as TimmRandomErasing

from emae_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomErasing(BaseTransform):
    """Fills a random box with noise that is standard normal once the image is normalised.

    timm erases after the normalisation, which here is the model's to do. So the noise is ``mean + std * normal``,
    rounded like the rest of the image but not clipped to its range; for this the image becomes int16. (mmpretrain's
    ``RandomErasing`` clips, which takes the tails off one value in 40.) Box and noise are timm's own draws.

    Required and modified key: ``img``, (H, W, 3) uint8 -> int16.

    Args:
        prob: share of the images that have a box erased.
        mean: of the normalisation, in the image's order of channels.
        std: likewise.
    """

    def __init__(self, prob: float, mean: Sequence[float], std: Sequence[float]):
        self.erase = TimmRandomErasing(prob, mode="pixel", max_count=1, device="cpu")
        self.mean, self.std = (np.asarray(values, np.float32) for values in (mean, std))

    def transform(self, results: dict) -> dict:
        """Erase a box of ``results["img"]``, or none."""
        image = results["img"].astype(np.int16)
        unchanged = torch.full((image.shape[2], *image.shape[:2]), torch.nan)
        noise = self.erase(unchanged).numpy().transpose(1, 2, 0)
        erased = ~np.isnan(noise[..., 0])
        image[erased] = np.rint(noise[erased] * self.std + self.mean).astype(np.int16)
        results["img"] = image
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.erase.probability}, mean={self.mean}, std={self.std})"
