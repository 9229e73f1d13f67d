"""How a check looks at the files: how many it decodes, and what it does about those that are broken."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from emae_mm.data.checks.config import DatasetConfig
from emae_mm.data.checks.report import DataReport
from emae_mm.data.decoding import BrokenImage, decode_image, read_bytes
from emae_mm.data.files import missing_files
from emae_mm.data.offenders import listed, refuse

Item, Result = TypeVar("Item"), TypeVar("Result")
_BATCH = 1024  # items in flight: a data set of millions does not become millions of waiting tasks


@dataclass(frozen=True)
class Inspection:
    """How one check is made.

    Attributes:
        sample: number of images to decode, drawn at random; None: all.
        seed: of the sample.
        collect: put every broken or missing file into the report; otherwise the first kind of fault found is an error.
        workers: threads that decode (decoders let go of Python's lock).
        progress: called with (decoded so far, total).
    """

    sample: int | None = 64
    seed: int = 0
    collect: bool = False
    workers: int = 1
    progress: Callable[[int, int], None] | None = None

    def draw(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items to decode, without repetition, in their order; the same for a seed."""
        if self.sample is None or len(items) <= self.sample:
            return items
        chosen = np.random.default_rng(self.seed).choice(len(items), self.sample, replace=False)
        return [items[index] for index in sorted(chosen)]

    def each(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Items with what the function makes of them, in order."""
        with ThreadPoolExecutor(self.workers) as pool:
            waiting, done = iter(items), 0
            while batch := list(itertools.islice(waiting, _BATCH)):
                for item, result in zip(batch, pool.map(function, batch), strict=True):
                    done += 1
                    if self.progress:
                        self.progress(done, len(items))
                    yield item, result

    def settle(self, problem: str, offenders: Iterable[str], fix: str, report: DataReport) -> None:
        """Offending files: all into the report, or one error; see :func:`~emae_mm.data.offenders.refuse`."""
        offenders = list(offenders)
        if self.collect:
            report.broken += offenders
        else:
            refuse(problem, offenders, fix)


def decode(
    items: Sequence[Item],
    sample_of: Callable[[Item], dict],
    dataset: DatasetConfig,
    report: DataReport,
    inspection: Inspection,
) -> dict[Item, tuple[int, int]]:
    """Decode images; what is broken is an error, an entry of the report, or, if training skips it, a note.

    Args:
        items: what the images are known by.
        sample_of: an item's ``img_path``, and ``img_source`` where it has one, as the data set gives them to LoadImage.
        dataset: says how many broken images training tolerates.
        report: gets counts, sizes and notes.
        inspection: how many are decoded, and what is done about broken ones.

    Returns:
        ``{item: (height, width)}`` of the whole ones among those decoded.

    Raises:
        DataError: broken images that the pipeline does not tolerate, or nothing but broken images.
    """

    def size_of(item: Item) -> tuple[int, int] | str:
        sample = sample_of(item)
        try:
            return decode_image(read_bytes(sample)).shape[:2]
        except BrokenImage as reason:
            return f"{sample['img_path']}: {reason}"

    chosen, sizes, broken = inspection.draw(items), {}, []
    for item, result in inspection.each(size_of, chosen):
        if isinstance(result, str):
            broken.append(result)
        else:
            sizes[item] = result
            report.sizes[result] += 1
    report.sampled += len(chosen)
    if not inspection.collect and sizes and 0 < len(broken) <= dataset.max_broken:
        report.notes.append(f"of {len(chosen)} sampled images some are broken and will be skipped: {listed(broken)}")
        return sizes
    limit = f", more than max_broken={dataset.max_broken}" if 0 < dataset.max_broken < len(broken) else ""
    inspection.settle(
        f"of {len(chosen)} sampled images some cannot be used{limit}",
        broken,
        "replace or remove them; in training, LoadImage(on_broken='skip', max_broken=...) tolerates some",
        report,
    )
    return sizes


def present(
    problem: str, folder: Path, names: Sequence[str], fix: str, report: DataReport, inspection: Inspection
) -> list[str]:
    """Those of the names (relative to the folder) that are files; the others are settled."""
    missing = missing_files(folder, names)
    inspection.settle(
        problem, [f"{folder / name}: it is missing" for name in missing] if inspection.collect else missing, fix, report
    )
    absent = set(missing)
    return [name for name in names if name not in absent]
