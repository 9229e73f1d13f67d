"""Checking tar shards: all headers, and a sample of the images."""

import numpy as np

from emae_mm.data.checks.config import DatasetConfig
from emae_mm.data.checks.inspection import Inspection, decode
from emae_mm.data.checks.report import DataReport
from emae_mm.data.files import require_folder
from emae_mm.data.offenders import OffendersError, listed
from emae_mm.data.shards.index import ShardIndex, make_index, open_index, read_shards, stamps_of
from emae_mm.data.shards.patterns import list_shards
from emae_mm.data.shards.reading import TarMember


def check_shards(dataset: DatasetConfig, inspection: Inspection, num_classes: int | None) -> DataReport:
    """Tar files of images, as :class:`~emae_mm.data.shards.dataset.TarShards` reads them; there are no classes."""
    report = DataReport("shards", str(dataset.root))
    require_folder(dataset.root, "data root")
    paths = list_shards(dataset.cfg.get("shards", ""), dataset.root)
    key = dataset.cfg.get("image_key", "")
    try:
        index = open_index(paths, key, dataset.cfg.get("index_folder"))
    except OffendersError as error:
        if not inspection.collect:
            raise
        report.broken += error.offenders
        index = make_index(read_shards(paths, key)[0], stamps_of(paths))
    report.images, report.shards = len(index), len(paths)
    if empty := [paths[number].name for number in np.flatnonzero(index.counts == 0) if not report.broken]:
        report.notes.append(f"shards without an image: {listed(empty)}")
    if index.without_image.any():
        report.notes.append(f"{index.without_image.sum()} samples without an image are not used")
    decode(range(len(index)), lambda number: _sample(index, paths, number), dataset, report, inspection)
    return report


def _sample(index: ShardIndex, paths: list, number: int) -> dict:
    shard = str(paths[index.shard_of(number)])
    source = TarMember(shard, int(index.offsets[number]), int(index.sizes[number]))
    return dict(img_path=f"{shard}:{index.name_of(number)}", img_source=source)
