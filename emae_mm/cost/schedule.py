"""How many images, steps and passes a config's training takes, from its numbers alone."""

import math
from dataclasses import dataclass

from mmengine.config import Config

from emae_mm.engine.distributed import split_batch
from emae_mm.errors import ConfigError

DATA_SETS = {
    "ImageNet-1K": (1_281_167, True),
    "COCO train2017": (118_287, True),
    "OpenImages train": (1_743_042, False),
}
"""Training images of the standard data sets by their name in ``record.data``, and whether the number is the papers'
own: which OpenImages images they took is not said; the number is that of the images with boxes, and they are said to
have about 1.7 million."""


@dataclass(frozen=True)
class Schedule:
    """How a training goes through its data.

    Attributes:
        images: of the training set.
        exact: False where which images belong to the set is a guess.
        processes: that share the work.
        batch: images a process holds at once.
        accumulated: passes before the optimiser steps.
        epochs: passes over the data (not whole where the config counts steps).
        steps_per_epoch: optimiser steps in an epoch, rounded up.
        steps: optimiser steps in all.
        images_seen: images that went through the model in all.
    """

    images: int
    exact: bool
    processes: int
    batch: int
    accumulated: int
    epochs: float
    steps_per_epoch: int
    steps: int
    images_seen: int

    @property
    def global_batch(self) -> int:
        """Images of an optimiser step."""
        return self.batch * self.accumulated * self.processes


def read_schedule(cfg: Config, processes: int, images: int | None = None) -> Schedule:
    """The schedule of a config when ``processes`` share the work, as the launcher shares it.

    Args:
        cfg: the config.
        processes: GPUs, at least 1.
        images: of the training set; None for that of the data set the config names.

    Raises:
        ConfigError: unknown size of the data, a batch that does not divide, or fewer images than a batch.
    """
    images, exact = (images, True) if images else _known_images(cfg)
    loader, loop = cfg.train_dataloader, cfg.train_cfg
    by_epoch = "max_epochs" in loop
    if total := cfg.get("global_batch_size"):
        batch, accumulated = split_batch(total, loader.batch_size, processes)
    else:
        batch, accumulated = loader.batch_size, cfg.get("optim_wrapper", {}).get("accumulative_counts", 1)
    per_process = math.ceil(images / processes)
    passes = per_process // batch if loader.get("drop_last") else math.ceil(per_process / batch)
    if not passes:
        raise ConfigError(
            f"{images} images on {processes} processes do not make a batch of {batch} each", "use a smaller batch"
        )
    # the launcher stretches what counts iterations where a global batch takes several passes
    all_passes = loop.max_epochs * passes if by_epoch else loop.max_iters * (accumulated if total else 1)
    epochs = loop.max_epochs if by_epoch else all_passes / passes
    held = min(batch, per_process) if loader.get("drop_last") else per_process / passes
    return Schedule(
        images=images,
        exact=exact,
        processes=processes,
        batch=batch,
        accumulated=accumulated,
        epochs=epochs,
        steps_per_epoch=math.ceil(passes / accumulated),
        steps=math.ceil(all_passes / accumulated),
        images_seen=round(all_passes * held * processes),
    )


def _known_images(cfg: Config) -> tuple[int, bool]:
    name = cfg.get("record", {}).get("data", "")
    if name not in DATA_SETS:
        raise ConfigError(
            f"how many training images {name or 'the data set'!r} has is not known here", "give --images N"
        )
    return DATA_SETS[name]
