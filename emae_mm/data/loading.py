"""The pipelines' first step: read an image, with a policy for files that are broken."""

import hashlib
import logging

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from emae_mm.data.decoding import COLOR_FLAGS, DEFAULT_MAX_BROKEN, BrokenImage, decode_image, read_bytes
from emae_mm.errors import ConfigError, DataError
from emae_mm.registry import TRANSFORMS

_POLICIES = ("error", "skip")
_WORKER_ROWS = 32


class BrokenFiles:
    """The set of broken files met so far, shared by all data-loader workers of a process, whatever their start method.

    Each worker writes to a row of its own in shared memory, so that no lock is needed; a file that several workers or
    epochs meet counts once. Copies made by ``copy.deepcopy`` share the set.

    Args:
        capacity: number of files after which a further one no longer needs to be remembered.
    """

    def __init__(self, capacity: int):
        self._table = torch.zeros(_WORKER_ROWS, capacity + 1, dtype=torch.int64).share_memory_()

    def __deepcopy__(self, memo: dict) -> "BrokenFiles":
        return self

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._table.share_memory_()  # plain pickling copies by value; between processes torch has shared it already

    def __len__(self) -> int:
        return len(self._known())

    def add(self, path: str) -> bool:
        """Remember a file; whether it is new."""
        key = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big", signed=True) or 1
        if key in self._known():
            return False
        worker = get_worker_info()
        row = self._table[0 if worker is None else 1 + worker.id % (_WORKER_ROWS - 1)]
        free = torch.nonzero(row == 0)
        if len(free):
            row[free[0, 0]] = key
        return True

    def _known(self) -> set[int]:
        return set(self._table[self._table != 0].tolist())


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read ``results['img_path']``; in place of ``LoadImageFromFile`` in mmpretrain, mmdet and mmseg pipelines.

    Where the data set gives an ``img_source`` (a shard's member), the bytes come from there and the path is its name. A
    ``rotation`` (0, 90, 180 or 270 degrees counterclockwise) is applied in place of the EXIF orientation.

    Sets ``img`` ((H, W, 3), BGR, uint8), ``img_shape`` and ``ori_shape`` ((H, W)). Grey, palette, transparent, CMYK and
    16-bit images become three channels of 8 bits. The EXIF orientation is applied, as mmcv's default backend does.

    Args:
        on_broken: what to do with a file that is missing, no image or truncated. ``"error"`` stops the run.
            ``"skip"`` returns None, for which mmengine's data sets take another sample, and logs one warning for each
            such file; only for training pipelines, since evaluation must see every image.
        max_broken: with ``"skip"``, the number of different broken files above which the run stops after all. They are
            counted over all workers and epochs, in each training process for itself.
        color_type: as in mmcv: ``"color"``, ``"color_ignore_orientation"``, ``"grayscale"`` or ``"unchanged"``.
        to_float32: give ``img`` as float32 with the same values.
        backend_args: mmengine's file back end for files that are not local; None reads local files.

    Raises:
        ConfigError: an unknown policy or colour type, or a negative limit.
        DataError: (on call) a broken file, or one too many of them; the message names the file and the count.
    """

    def __init__(
        self,
        on_broken: str = "error",
        max_broken: int = DEFAULT_MAX_BROKEN,
        color_type: str = "color",
        to_float32: bool = False,
        backend_args: dict | None = None,
    ):
        if on_broken not in _POLICIES:
            raise ConfigError(f"LoadImage: on_broken={on_broken!r} is no policy", f"choose one of {list(_POLICIES)}")
        if color_type not in COLOR_FLAGS:
            raise ConfigError(f"LoadImage: unknown color_type={color_type!r}", f"choose one of {list(COLOR_FLAGS)}")
        if max_broken < 0:
            raise ConfigError(f"LoadImage: max_broken={max_broken} is negative", "0 tolerates no broken file")
        self.on_broken = on_broken
        self.max_broken = max_broken
        self.color_type = color_type
        self.to_float32 = to_float32
        self.backend_args = dict(backend_args) if backend_args else None
        self.broken = BrokenFiles(max_broken) if on_broken == "skip" else None

    def transform(self, results: dict) -> dict | None:
        """Load the image into ``results``; None for a broken file that is to be skipped."""
        path = results["img_path"]
        try:
            return self._load(results)
        except BrokenImage as reason:
            if self.broken is None:
                raise DataError(
                    f"the image {path} cannot be used: {reason}",
                    "replace or remove it; in training, LoadImage(on_broken='skip') tolerates single broken files",
                ) from reason
            self._skip(path, reason)
            return None

    def _load(self, results: dict) -> dict:
        """What :meth:`transform` does for a file that is not broken; raises BrokenImage for one that is."""
        image = self._decode(read_bytes(results, self.backend_args), results.get("rotation"))
        if self.to_float32:
            image = image.astype(np.float32)
        results["img"] = image
        results["img_shape"] = image.shape[:2]
        results["ori_shape"] = image.shape[:2]
        return results

    def _decode(self, data: bytes, rotation: int | None) -> np.ndarray:
        if rotation is None:
            return decode_image(data, self.color_type)
        # the data set says how the pixels as stored are to be turned, which the file's EXIF would do a second time
        stored = "color_ignore_orientation" if self.color_type == "color" else self.color_type
        return np.ascontiguousarray(np.rot90(decode_image(data, stored), rotation // 90))

    def _skip(self, path: str, reason: BrokenImage) -> None:
        if not self.broken.add(str(path)):
            return
        count = len(self.broken)
        if count > self.max_broken:
            raise DataError(
                f"{count} images cannot be used, more than max_broken={self.max_broken}; the last is {path}: {reason}",
                "check the data set's copy, or raise max_broken of LoadImage",
            )
        print_log(
            f"skipped the image {path}: {reason} (broken file {count} of at most {self.max_broken})",
            logger="current",
            level=logging.WARNING,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(on_broken={self.on_broken!r}, max_broken={self.max_broken}, "
            f"color_type={self.color_type!r}, to_float32={self.to_float32})"
        )
