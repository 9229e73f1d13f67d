"""The fast way from a file to a random resized crop: pre-training's input at several times the usual speed."""

import io
import warnings
from collections.abc import Sequence
from types import SimpleNamespace

import cv2
import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import Image

from emae_mm.data.decoding import DEFAULT_MAX_BROKEN, read_bytes
from emae_mm.data.loading import LoadImage
from emae_mm.errors import ConfigError
from emae_mm.registry import TRANSFORMS

_EXIF, _EXIF_ORIENTATION = b"Exif\0\0", 0x0112
_COLOUR_SPACES = ("YCbCr", "RGB", "Gray")
_REDUCTIONS = (8, 4, 2)
"""1/8, 1/4 and 1/2: the sizes for which libjpeg-turbo has vector code; others take longer than full size."""


@TRANSFORMS.register_module()
class LoadImageRandomResizedCrop(LoadImage):
    """``LoadImage`` and mmpretrain's ``RandomResizedCrop`` (Pillow, bicubic) in one step, in about half the time.

    The crop is drawn by mmpretrain's code from the same random numbers and resized by torch's antialiased bicubic
    kernel for bytes in place of Pillow's: few values differ, mostly by one level. Large JPEGs, whose crop is far larger
    than the output, are decoded at 1/2, 1/4 or 1/8 of their size; that also rounds the crop's edges to 2, 4 or 8 pixels
    of the file and costs some fidelity (docs/data-loading.md has the numbers). What is no upright grey or coloured JPEG
    (another format, CMYK, an EXIF orientation, a data set's ``rotation``) or is damaged goes through ``LoadImage``'s
    decoder at full size.

    Sets ``img`` ((height, width, 3), BGR, uint8, a view of contiguous planes, which ``PackInputs`` takes as they are),
    ``img_shape`` and ``ori_shape`` as the two steps do, for paths and shard members alike.

    Args:
        scale: output size in pixels, (height, width) or one number for both.
        crop_ratio_range: range of the crop's area over the image's.
        aspect_ratio_range: range of the crop's width over its height.
        exact: take the two usual steps, for the very same pixels as theirs.
        oversampling: decode at a reduced size where the crop there is still at least this many times the output in
            height and width, at least 1. ``float("inf")`` always decodes at full size.
        on_broken: as for ``LoadImage``.
        max_broken: as for ``LoadImage``.
        backend_args: as for ``LoadImage``.

    Raises:
        ConfigError: an oversampling below 1, or as ``LoadImage``.
        DataError: (on call) as ``LoadImage``.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        exact: bool = False,
        oversampling: float = 1.5,
        on_broken: str = "error",
        max_broken: int = DEFAULT_MAX_BROKEN,
        backend_args: dict | None = None,
    ):
        super().__init__(on_broken, max_broken, backend_args=backend_args)
        if not oversampling >= 1:
            raise ConfigError(
                f"LoadImageRandomResizedCrop: oversampling={oversampling} would enlarge what was decoded too small",
                "give 1 or more; float('inf') decodes every image at full size",
            )
        self.crop = RandomResizedCrop(
            scale, crop_ratio_range, aspect_ratio_range, interpolation="bicubic", backend="pillow"
        )
        self.exact = exact
        self.oversampling = oversampling

    def _load(self, results: dict) -> dict:
        if self.exact:
            return self.crop.transform(super()._load(results))
        data, rotation = read_bytes(results, self.backend_args), results.get("rotation")
        size = jpeg_size(data, rotation)
        if size is None:
            image = self._decode(data, rotation)
            size = image.shape[:2]
            box = self._draw(size)
        else:
            box = self._draw(size)
            reduction = self._reduction(box)
            image = decode_jpeg(data, size, reduction)
            if image is None:
                image = self._decode(data, rotation)
            else:
                box = reduced_box(box, reduction)
        results["img"] = resize_crop(image, box, self.crop.scale)
        results["img_shape"] = results["img"].shape
        results["ori_shape"] = size
        return results

    def _draw(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """(top, left, height, width) for an image (height, width); mmpretrain reads nothing of it but its shape."""
        return self.crop.rand_crop_params(SimpleNamespace(shape=size))

    def _reduction(self, box: tuple[int, int, int, int]) -> int:
        room = min(box[2] / self.crop.scale[0], box[3] / self.crop.scale[1]) / self.oversampling
        return next((reduction for reduction in _REDUCTIONS if reduction <= room), 1)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(scale={self.crop.scale}, crop_ratio_range={self.crop.crop_ratio_range}, "
            f"aspect_ratio_range={self.crop.aspect_ratio_range}, exact={self.exact}, "
            f"oversampling={self.oversampling}, on_broken={self.on_broken!r}, max_broken={self.max_broken})"
        )


def jpeg_size(data: bytes, rotation: int | None = None) -> tuple[int, int] | None:
    """The size in the header of a JPEG that can be decoded in the fast way.

    Args:
        data: the file's bytes.
        rotation: degrees to turn the stored pixels, in place of the EXIF orientation; None if the EXIF counts.

    Returns:
        (height, width) in pixels; None for what is no grey or coloured JPEG, has a damaged header, or is to be turned.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    turned = _is_turned(data) if rotation is None else rotation
    return None if turned or space not in _COLOUR_SPACES else (height, width)


def _is_turned(data: bytes) -> bool:
    """Whether a JPEG has an EXIF orientation other than upright, or one that cannot be read."""
    if _EXIF not in data:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, and of sizes that the decoder judges
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return image.getexif().get(_EXIF_ORIENTATION, 1) != 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True


def decode_jpeg(data: bytes, size: tuple[int, int], reduction: int = 1) -> np.ndarray | None:
    """Decode a JPEG at 1, 1/2, 1/4 or 1/8 of its size, reduced by leaving out high frequencies of its DCT.

    Args:
        data: the file's bytes.
        size: (height, width) as in its header.
        reduction: 1, 2, 4 or 8.

    Returns:
        (ceil(height / reduction), ceil(width / reduction), 3) uint8 in BGR order; None if there is anything amiss with
        the file, which a more tolerant decoder then judges.
    """
    height, width = (-(-edge // reduction) for edge in size)
    try:
        return simplejpeg.decode_jpeg(data, "BGR", min_height=height, min_width=width, min_factor=reduction)
    except ValueError:
        return None


def reduced_box(box: tuple[int, int, int, int], reduction: int) -> tuple[int, int, int, int]:
    """A box (top, left, height, width) in the pixels of an image reduced by a factor, its edges rounded."""
    if reduction == 1:
        return box
    top, left, height, width = box
    bottom, right = round((top + height) / reduction), round((left + width) / reduction)
    top, left = round(top / reduction), round(left / reduction)
    return top, left, bottom - top, right - left


def resize_crop(image: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Crop and resize as Pillow's bicubic filter with antialiasing does, but for rounding.

    Args:
        image: (H, W, C) uint8.
        box: (top, left, height, width) within it.
        size: (height, width) of the result.

    Returns:
        (height, width, C) uint8, a view of contiguous planes (C, height, width).
    """
    top, left, height, width = box
    crop = torch.from_numpy(image)[None, top : top + height, left : left + width].contiguous().permute(0, 3, 1, 2)
    pixels = F.interpolate(crop, tuple(size), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    planes = np.empty((pixels.shape[-1], *size), np.uint8)
    cv2.split(pixels.numpy(), list(planes))  # several times as fast as a copy by torch or NumPy
    return planes.transpose(1, 2, 0)
