"""Where the demonstration's pixels come from: real images that installed packages carry, nothing is downloaded."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from PIL import Image

from emae_mm.errors import DataError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# All are in the wheels themselves. Photographs that show letters or digits are left out, and so is the right image of
# the stereo pair, which is nearly the left one.
PHOTOGRAPHS = {
    "train": (
        "skimage/data/astronaut.png",
        "skimage/data/brick.png",
        "skimage/data/camera.png",
        "skimage/data/coffee.png",
        "skimage/data/gravel.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/ihc.png",
        "skimage/data/motorcycle_left.png",
        "sklearn/datasets/images/china.jpg",
    ),
    "val": (
        "skimage/data/chelsea.png",
        "skimage/data/grass.png",
        "skimage/data/moon.png",
        "skimage/data/rocket.jpg",
        "sklearn/datasets/images/flower.jpg",
    ),
}
_VAL_SHARE = 0.2


@dataclass(frozen=True)
class Sources:
    """What the scenes of one split are made of.

    Attributes:
        photographs: RGB images.
        strokes: (N, 8, 8) float32 in 0..1, the digits' ink.
        digits: (N,) class of each, 0..9.
        digit_ids: (N,) their positions in scikit-learn's data set.
    """

    photographs: list[Image.Image]
    strokes: np.ndarray
    digits: np.ndarray
    digit_ids: np.ndarray


def load_sources(split: str, rng_seed: int) -> Sources:
    """The photographs and handwritten digits of ``"train"`` or ``"val"``; the two have none in common.

    Raises:
        DataError: an installed package lacks one of the photographs.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    validation = np.zeros(len(data.target), dtype=bool)
    rng = np.random.default_rng(rng_seed)
    for digit in range(10):
        members = rng.permutation(np.flatnonzero(data.target == digit))
        validation[members[: round(_VAL_SHARE * len(members))]] = True
    ids = np.flatnonzero(validation if split == "val" else ~validation)
    strokes = (data.images[ids] / 16).astype(np.float32)
    return Sources([_photograph(name) for name in PHOTOGRAPHS[split]], strokes, data.target[ids], ids)


def _photograph(name: str) -> Image.Image:
    package, path = name.split("/", 1)
    try:
        with (files(package) / path).open("rb") as file:
            return Image.open(file).convert("RGB")
    except (OSError, ModuleNotFoundError) as error:
        raise DataError(
            f"the demonstration needs the photograph {name}, which the installed packages lack",
            "pip install --force-reinstall scikit-image scikit-learn",
        ) from error
