"""Image bytes to an array: strict about broken files, tolerant of every kind of whole one."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image, ImageOps, UnidentifiedImageError

# OpenCV prints its own message for each file it cannot decode; ours names the file and says what to do.
cv2.setLogLevel(0)

# mmcv's names, so that ``color_type`` means here what it means in OpenMMLab's loader.
COLOR_FLAGS = {
    "color": cv2.IMREAD_COLOR,
    "color_ignore_orientation": cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    "grayscale": cv2.IMREAD_GRAYSCALE,
    "unchanged": cv2.IMREAD_UNCHANGED,
}
_PIL_MODES = {"color": "RGB", "color_ignore_orientation": "RGB", "grayscale": "L"}
DEFAULT_MAX_BROKEN = 100
"""How many broken files training tolerates where it is told to skip them at all."""
_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", 0xDA
_PNG = b"\x89PNG"


class BrokenImage(ValueError):
    """The bytes are not one whole image; the message says what is wrong, the caller adds the file's name."""


def decode_image(data: bytes, color_type: str = "color") -> np.ndarray:
    """Decode one image.

    Grey, palette, transparent, CMYK and 16-bit images become three channels of 8 bits; transparency is dropped.

    Args:
        data: the file's bytes.
        color_type: ``"color"`` (EXIF orientation applied, as mmcv's default backend does),
            ``"color_ignore_orientation"``, ``"grayscale"`` or ``"unchanged"``.

    Returns:
        uint8 array (H, W, 3) in BGR order; (H, W) for ``"grayscale"``; the file's own for ``"unchanged"``.

    Raises:
        BrokenImage: no image, an unknown format, or a file that ends too early. Decoders differ in what they make of a
            truncated JPEG or PNG (some fill the rest with grey), so their end markers are looked for before decoding.
            Damage in the middle of an otherwise whole JPEG is decoded as far as possible, as by every JPEG decoder.
    """
    if not data:
        raise BrokenImage("the file is empty")
    if data.startswith(_SOI) and not data.endswith(_EOI) and not _has_end_of_image(data):
        raise BrokenImage("the JPEG is truncated (it has no end-of-image marker)")
    if data.startswith(_PNG) and data.rfind(b"IEND") < 0:
        raise BrokenImage("the PNG is truncated (it has no end chunk)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), COLOR_FLAGS[color_type])
    except cv2.error as error:
        raise BrokenImage(f"OpenCV refuses it ({error.err})") from error
    return image if image is not None else _decode_with_pillow(data, color_type)


def read_image(path: str | Path, color_type: str = "color") -> np.ndarray:
    """:func:`decode_image` of a local file.

    Raises:
        BrokenImage: also for a file that is missing or cannot be read.
    """
    return decode_image(read_bytes({"img_path": path}), color_type)


def read_bytes(results: Mapping[str, Any], backend_args: dict | None = None) -> bytes:
    """The encoded image of a sample, wherever its data set keeps it.

    Args:
        results: a sample with ``img_path``, or an ``img_source`` that has ``read() -> bytes`` (a shard's member).
        backend_args: mmengine's file back end for paths that are not local; None reads local files.

    Raises:
        BrokenImage: it is missing or cannot be read.
    """
    try:
        if "img_source" in results:
            return results["img_source"].read()
        if backend_args:
            return fileio.get(results["img_path"], backend_args=backend_args)
        with open(results["img_path"], "rb") as file:
            return file.read()
    except (OSError, KeyError) as error:
        raise BrokenImage(f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_label_map(path: str | Path) -> np.ndarray:
    """A PNG of class indices as mmseg reads it: Pillow, values as stored (palette images give their indices).

    Returns:
        integer array, (H, W) for a proper label map; (H, W, C) for a coloured image, which is none.

    Raises:
        BrokenImage: it cannot be read or decoded.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError as error:
        raise BrokenImage("the file does not exist") from error
    except UnidentifiedImageError as error:
        raise BrokenImage("it is no image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenImage(str(error)) from error


def _has_end_of_image(data: bytes) -> bool:
    """Whether the end marker follows the start of the first scan (an EXIF thumbnail before it has one of its own)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        position += 2 + length
        if marker == _SOS:
            return data.find(_EOI, position) >= 0
    return False


def _decode_with_pillow(data: bytes, color_type: str) -> np.ndarray:
    """Formats that the installed OpenCV was built without."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata: the pixels decide
            image = Image.open(io.BytesIO(data))
            if color_type != "color_ignore_orientation":
                image = ImageOps.exif_transpose(image)
            array = np.asarray(image.convert(_PIL_MODES[color_type]) if color_type in _PIL_MODES else image)
    except UnidentifiedImageError as error:
        raise BrokenImage("it is no image, or so damaged that its format is not recognised") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BrokenImage(f"it cannot be decoded ({error})") from error
    return np.ascontiguousarray(array[..., ::-1]) if array.ndim == 3 else array
