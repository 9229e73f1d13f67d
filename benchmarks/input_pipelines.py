"""The input pipelines that are compared, their timing in turns, and the difference of their images."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from mmengine import Config
from mmengine.dataset import Compose, default_collate
from mmpretrain.registry import MODELS, TRANSFORMS
from PIL import Image
from rich.console import Console
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

import emae_mm.registry  # noqa: F401 - registers the transforms
from emae_mm.data.fast_crop import LoadImageRandomResizedCrop
from emae_mm.paths import find_config

BATCH = 64
OURS = "fast"


class Images(Dataset):
    """Samples of one pipeline."""

    def __init__(self, paths: list[str], pipeline: Callable):
        self.paths, self.pipeline = paths, pipeline

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        return self.pipeline(self.paths[index])


class FromPath:
    """OpenMMLab's pipelines, called with a path."""

    def __init__(self, steps: list[dict]):
        self.steps = Compose([TRANSFORMS.build(step) for step in steps])

    def __call__(self, path: str) -> dict:
        return self.steps({"img_path": path})


class FromPIL:
    """torchvision's, as its image folders and the MAE release have it."""

    def __init__(self, mean: list[float], std: list[float]):
        self.steps = T.Compose(
            [
                T.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=T.InterpolationMode.BICUBIC, antialias=True),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize([value / 255 for value in mean], [value / 255 for value in std]),
            ]
        )

    def __call__(self, path: str) -> torch.Tensor:
        with open(path, "rb") as file:
            return self.steps(Image.open(file).convert("RGB"))


@dataclass
class Pipeline:
    """A pipeline with what the model's side does to its batches."""

    sample: Callable
    normalise: Callable


def pipelines() -> dict[str, Pipeline]:
    config = Config.fromfile(find_config("_base_/datasets/imagenet_pretrain.py"))
    normalise = MODELS.build(config.data_preprocessor)
    load, *rest = config.train_pipeline
    crop = {key: load[key] for key in ("scale", "crop_ratio_range")}
    stock = [
        dict(type="LoadImageFromFile"),
        dict(type="RandomResizedCrop", backend="pillow", interpolation="bicubic", **crop),
    ]
    mean, std = config.data_preprocessor.mean, config.data_preprocessor.std
    return {
        "torchvision": Pipeline(FromPIL(mean, std), lambda batch: batch),
        "mmpretrain": Pipeline(FromPath([*stock, *rest]), normalise),
        "exact": Pipeline(FromPath([load | dict(exact=True), *rest]), normalise),
        OURS: Pipeline(FromPath([load, *rest]), normalise),
    }


def time_on_one_core(pipeline: Pipeline, paths: list[str]) -> tuple[float, float]:
    """Seconds for the samples as a loader's worker makes them, and for a normalised batch of them.

    The thread's own processor time, which other processes on the machine disturb less than the clock's.
    """
    start = time.thread_time()
    samples = [pipeline.sample(path) for path in paths]
    sampled = time.thread_time()
    pipeline.normalise(default_collate(samples))
    return sampled - start, time.thread_time() - start


def time_loader(loader: DataLoader) -> float:
    """Seconds by the clock until the loader's last batch."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def measure(paths: list[str], rounds: int, workers: int, console: Console) -> dict[str, dict[str, list[float]]]:
    """Images per second of every round, for each pipeline: ``samples``, ``batches`` and, with workers, ``loader``."""
    contenders = pipelines()
    loaders = {
        name: DataLoader(
            Images(paths, one.sample), BATCH, num_workers=workers, persistent_workers=True, collate_fn=default_collate
        )
        for name, one in contenders.items()
        if workers
    }
    names = list(contenders)
    kinds = ("samples", "batches", *(["loader"] if workers else []))
    found = {name: {kind: [] for kind in kinds} for name in names}
    for turn in range(-1, rounds):  # the first is to warm up
        np.random.seed(turn + 1)
        torch.manual_seed(turn + 1)
        seconds = {name: np.zeros(len(kinds)) for name in names}
        for first in range(0, len(paths), BATCH):  # in turns of a batch, so that all meet the same disturbances
            for name in names:
                seconds[name][:2] += time_on_one_core(contenders[name], paths[first : first + BATCH])
        for name, loader in loaders.items():
            seconds[name][2] = time_loader(loader)
        if turn >= 0:
            for name in names:
                for kind, taken in zip(kinds, seconds[name], strict=True):
                    found[name][kind].append(len(paths) / taken)
        console.print(f"round {turn + 1} of {rounds}", style="dim")
    return found


class Noting(LoadImageRandomResizedCrop):
    """Remembers the reduction of the last image."""

    reduction = 1

    def _reduction(self, box):
        self.reduction = super()._reduction(box)
        return self.reduction


def compare(paths: list[str]) -> dict:
    """The fast step's images against the exact one's, with the same random numbers."""
    load = Config.fromfile(find_config("_base_/datasets/imagenet_pretrain.py")).train_pipeline[0]
    options = {key: value for key, value in load.items() if key != "type"}
    exact, fast = LoadImageRandomResizedCrop(**options | dict(exact=True)), Noting(**options)
    sums, psnr, largest, equal = np.zeros((2, 2, 3)), {}, 0, []
    for seed, path in enumerate(paths):
        pair = []
        for step in (exact, fast):
            np.random.seed(seed)
            pair.append(step({"img_path": path})["img"].astype(np.float64))
        for row, image in zip(sums, pair, strict=True):
            row += image.mean((0, 1)), (image**2).mean((0, 1))
        error = np.abs(pair[0] - pair[1])
        psnr.setdefault(fast.reduction, []).append(10 * np.log10(255**2 / max((error**2).mean(), 1e-9)))
        if fast.reduction == 1:
            largest = max(largest, int(error.max()))
            equal.append((error == 0).mean())
    mean, square = (sums / len(paths)).swapaxes(0, 1)[..., ::-1]  # to RGB
    variance = square - mean**2
    return {
        "images": len(paths),
        "mean_exact": mean[0].tolist(),
        "mean_difference": (mean[1] - mean[0]).tolist(),
        "variance_exact": variance[0].tolist(),
        "variance_ratio": (variance[1] / variance[0]).tolist(),
        "full_decoding": {"equal_values": float(np.mean(equal)) if equal else None, "largest_difference": largest},
        "psnr": {
            f"1/{reduction}": {
                "images": len(found),
                "mean": float(np.mean(found)),
                "p5": float(np.percentile(found, 5)),
                "min": float(np.min(found)),
            }
            for reduction, found in sorted(psnr.items())
        },
    }


def summary(found: dict[str, dict[str, list[float]]]) -> dict:
    """Medians, and medians of the rounds' ratios of ours to each."""
    return {
        name: {
            kind: {
                "images_per_s": float(np.median(rates)),
                "ours_is_faster_by": float(np.median(np.divide(found[OURS][kind], rates))),
                "rounds": rates,
            }
            for kind, rates in kinds.items()
        }
        for name, kinds in found.items()
    }
