"""JPEGs of a given size, cut from the photographs that installed packages carry."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from emae_mm.data.demo.sources import load_sources


def jpeg_folder(cache: Path, count: int, width: int, height: int, quality: int) -> Path:
    """A folder of ``count`` JPEGs, made at the first call: random windows of 14 photographs, some mirrored, resampled.

    A window takes 60 to 100 % of the largest that fits, so most photographs are neither enlarged nor reduced by much at
    500x375.
    """
    folder = cache / f"emae_mm-jpegs-{width}x{height}-q{quality}-{count}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    photographs = [photograph for split in ("train", "val") for photograph in load_sources(split, 0).photographs]
    rng = np.random.default_rng(0)
    partial = Path(tempfile.mkdtemp(dir=cache))
    try:
        for index in range(count):
            picture = _window(photographs[index % len(photographs)], width, height, rng)
            picture.save(partial / f"{index:05}.jpg", quality=quality)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _window(photograph: Image.Image, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.6, 1.0) * min(photograph.width / width, photograph.height / height)
    left = rng.uniform(0, photograph.width - share * width)
    top = rng.uniform(0, photograph.height - share * height)
    box = (left, top, left + share * width, top + share * height)
    picture = photograph.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture
