"""The order in which samples of shards are visited."""

from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Dataset, Sampler

from emae_mm.errors import ConfigError
from emae_mm.registry import DATA_SAMPLERS


def shuffled(samples_per_shard: Sequence[int], shards_at_once: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of all samples: shards in random order, ``shards_at_once`` of them together, shuffled within those.

    Args:
        samples_per_shard: S numbers; the samples are numbered in the shards' order.
        shards_at_once: the samples of as many shards are mixed. S or more gives a permutation of everything.
        seed: of the run.
        epoch: each has another order.

    Returns:
        (N,) int64, the same on every machine and for every number of processes.
    """
    generator = np.random.default_rng((seed, epoch))
    counts = np.asarray(samples_per_shard, np.int64)
    first = np.cumsum(counts) - counts
    shards = generator.permutation(len(counts))
    windows = []
    for start in range(0, len(shards), shards_at_once):
        window = [np.arange(first[s], first[s] + counts[s]) for s in shards[start : start + shards_at_once]]
        windows.append(generator.permutation(np.concatenate(window)))
    return np.concatenate(windows)


@DATA_SAMPLERS.register_module()
class ShardSampler(Sampler):
    """Deals out one epoch of a ``TarShards`` data set: for training counted in epochs.

    Every process gets equally many samples: the global order is dealt out one by one, and, if it does not divide,
    begins again at its start. It depends on the seed and the epoch alone.

    Args:
        dataset: has ``samples_per_shard``.
        shuffle: False visits the samples in their order.
        seed: of the order; None draws one that all processes share.
        shards_at_once: see :func:`shuffled`. 16 shards of about 1000 images, the usual size, mix well and fit into a
            machine's file cache.

    Raises:
        ConfigError: the data set has no shards, or ``shards_at_once`` is no positive number.
    """

    def __init__(self, dataset: Dataset, shuffle: bool = True, seed: int | None = None, shards_at_once: int = 16):
        if getattr(dataset, "samples_per_shard", None) is None:
            raise ConfigError(
                f"{type(self).__name__} deals out shards, but the data set has none",
                "use it with emae_mm.TarShards, and mmengine's DefaultSampler or InfiniteSampler with others",
            )
        if shards_at_once < 1:
            raise ConfigError(f"{type(self).__name__}: shards_at_once={shards_at_once}", "use 1 or more")
        self.samples_per_shard = list(dataset.samples_per_shard)
        self.size = sum(self.samples_per_shard)
        self.shuffle, self.shards_at_once, self.epoch = shuffle, shards_at_once, 0
        self.seed = sync_random_seed() if seed is None else seed
        self.rank, self.world_size = get_dist_info()

    def order(self, epoch: int) -> np.ndarray:
        """(N,) int64, the global order of an epoch."""
        if not self.shuffle:
            return np.arange(self.size)
        return shuffled(self.samples_per_shard, self.shards_at_once, self.seed, epoch)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration visits."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        padded = np.resize(self.order(self.epoch), len(self) * self.world_size)
        yield from padded[self.rank :: self.world_size].tolist()

    def __len__(self) -> int:
        return -(-self.size // self.world_size)


@DATA_SAMPLERS.register_module()
class InfiniteShardSampler(ShardSampler):
    """Deals out epoch after epoch without end: for training counted in steps, resumed in the middle of an epoch.

    Epochs follow each other without padding: over any stretch, no process gets more than one sample more than another,
    and every batch is full. Arguments are those of :class:`ShardSampler`.
    """

    start = 0

    def skip(self, num_samples: int) -> None:
        """Begin after ``num_samples`` samples of this process, at no cost; mmengine calls it to resume."""
        self.start = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Nothing: the samples that were dealt out say which epoch it is."""

    def __iter__(self) -> Iterator[int]:
        epoch, position = divmod(self.rank + self.world_size * self.start, self.size)
        while True:
            yield from self.order(epoch)[position :: self.world_size].tolist()
            taken = max(0, -(-(self.size - position) // self.world_size))
            passed, position = divmod(position + taken * self.world_size, self.size)
            epoch += passed

    def __len__(self) -> int:
        return self.size
