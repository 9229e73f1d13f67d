"""Data randomness that travels with the sample's index.

Every index a sampler gives carries a seed made of (run seed, epoch, position in the global order). The data set draws
its augmentations from that seed alone, so that they do not depend on the number of workers or processes, on workers
that live on over epochs, or on where an interrupted run was resumed; and drawing them leaves the main process's random
states, which model and optimiser use, untouched.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS as ROOT_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import Dataset, Sampler, get_worker_info

from emae_mm.registry import DATA_SAMPLERS, DATASETS


class SeededIndex(int):
    """A sample's index with the seed of its augmentations."""

    seed: int

    def __new__(cls, index: int, seed: int) -> "SeededIndex":
        self = super().__new__(cls, index)
        self.seed = seed
        return self

    def __reduce__(self):
        return type(self), (int(self), self.seed)


def sample_seed(run_seed: int, epoch: int, position: int) -> int:
    """A 32-bit seed, well mixed, of one sample of one epoch."""
    return int(np.random.SeedSequence((run_seed, epoch, position)).generate_state(1)[0])


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Python, NumPy and torch (CPU) draw from ``seed`` inside; outside they go on as if nothing had happened."""
    worker = get_worker_info() is not None  # a worker process has no other use of its random states
    before = None if worker else (random.getstate(), np.random.get_state(), torch.get_rng_state())
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        if before is not None:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


@DATASETS.register_module()
class SeededDataset(Dataset):
    """A data set whose samples are augmented from their index's seed; everything else is the inner data set's.

    Args:
        dataset: config of the inner data set.
    """

    def __init__(self, dataset: dict):
        self.inner = ROOT_DATASETS.build(dataset)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SeededIndex):
            return self.inner[index]
        with isolated_randomness(index.seed):
            return self.inner[int(index)]

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.inner, name)


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Gives the inner sampler's indices, each with its seed.

    The inner sampler must deal the global order out to the processes one by one (process r of W gets positions r, r+W,
    ...), as all of mmengine's do.

    Args:
        dataset: the data set to sample.
        sampler: config of the inner sampler.
        seed: the run's seed, which the inner sampler shuffles with, too.
    """

    def __init__(self, dataset: Dataset, sampler: dict, seed: int | None = None):
        self.inner = ROOT_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.run_seed = seed or 0
        self.rank, self.world_size = get_dist_info()
        self.skipped = 0
        if hasattr(self.inner, "skip"):
            self.skip = self._skip

    def _skip(self, num_samples: int) -> None:
        """Go on after ``num_samples`` samples of this process, as mmengine's loops ask for when they resume."""
        self.inner.skip(num_samples)
        self.skipped += num_samples

    def __iter__(self) -> Iterator[SeededIndex]:
        epoch = getattr(self.inner, "epoch", 0)
        for local, index in enumerate(self.inner, start=self.skipped):
            yield SeededIndex(index, sample_seed(self.run_seed, epoch, self.rank + self.world_size * local))

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)


def seed_dataloaders(cfg: dict) -> None:
    """Wrap data set and sampler of the three data loaders of a config, in place."""
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader")
        if loader is not None:
            loader["dataset"] = dict(type="emae_mm.SeededDataset", dataset=loader["dataset"])
            loader["sampler"] = dict(type="emae_mm.SeededSampler", sampler=loader["sampler"])
