"""Shards, and a hook that writes down which samples a run saw, for the tests of data in tar files."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import webdataset
from mmengine.hooks import Hook
from PIL import Image

from emae_mm.registry import HOOKS


def jpeg(number: int, size: tuple[int, int] = (20, 16)) -> bytes:
    """A JPEG of ``size`` (width, height), different for every number."""
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG")
    return buffer.getvalue()


def write_shards(folder: Path, counts: Sequence[int], broken: Sequence[int] = ()) -> list[Path]:
    """``s-0.tar`` and so on with as many samples each, as webdataset writes them; the numbers in ``broken`` are cut."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, number = [], 0
    for shard, count in enumerate(counts):
        paths.append(folder / f"s-{shard}.tar")
        with webdataset.TarWriter(str(paths[-1])) as writer:
            for _ in range(count):
                image = jpeg(number)
                content = image[: len(image) // 2] if number in broken else image
                writer.write({"__key__": f"image{number:04d}", "jpg": content, "cls": number % 3})
                number += 1
    return paths


@HOOKS.register_module()
class SeenHook(Hook):
    """Appends the step and the names of its images to ``seen_<rank>.txt`` in the work directory."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        names = [sample.img_path.rpartition(":")[2] for sample in data_batch["data_samples"]]
        with open(Path(runner.work_dir) / f"seen_{runner.rank}.txt", "a") as file:
            file.write(" ".join([str(runner.iter), *names]) + "\n")
