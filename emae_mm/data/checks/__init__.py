"""Checks of the data before a run: whatever can be known in seconds is said before hours are spent."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from emae_mm.data.checks.ade20k import check_ade20k
from emae_mm.data.checks.coco import check_coco
from emae_mm.data.checks.config import DatasetConfig, evaluates_masks, numbers_of_classes, plain_datasets
from emae_mm.data.checks.images import check_imagefolder
from emae_mm.data.checks.inspection import Inspection
from emae_mm.data.checks.openimages import check_openimages
from emae_mm.data.checks.report import DataReport
from emae_mm.data.checks.shards import check_shards
from emae_mm.errors import DataError

__all__ = ["DataReport", "Inspection", "check_config_data", "check_dataset"]

_CHECKS = {
    "imagefolder": check_imagefolder,
    "coco": check_coco,
    "ade20k": check_ade20k,
    "openimages": check_openimages,
    "shards": check_shards,
}
_DEFAULT = Inspection()
_SPLITS = ("train", "val", "test")


def check_dataset(
    dataset_cfg: Mapping[str, Any],
    inspection: Inspection = _DEFAULT,
    *,
    num_classes: int | None = None,
    masks: bool = False,
) -> DataReport:
    """Check one data set of an OpenMMLab config; wrappers such as ``RepeatDataset`` are looked into.

    All annotations and file names are checked; images (and label maps) are decoded in a random sample.

    Args:
        dataset_cfg: the resolved config of a data set, with ``data_root``, ``data_prefix`` and ``ann_file``. Known
            types: ``ImageFolder``, ``CustomDataset``, ``ImageNet``, ``CocoFormatDataset``, ``CocoDataset``,
            ``ADE20KFormatDataset``, ``ADE20KDataset``, ``BaseSegDataset``, ``OpenImages``, ``TarShards``; any other
            gives an ``"unchecked"`` report.
        inspection: how many images are decoded, and whether broken ones are collected.
        num_classes: the model's number of classes, which the data must have; None: any.
        masks: whether each object of COCO-format data must have a mask even if the pipeline loads none.

    Returns:
        The report; of several data sets in a ``ConcatDataset``, with their counts summed.

    Raises:
        DataError: the data cannot be used; one message names up to five offenders and their number.
    """
    plain = [replace(dataset, evaluates_masks=masks) for dataset in plain_datasets(dataset_cfg)]
    reports = [_check_plain(dataset, inspection, num_classes) for dataset in plain]
    if not reports:
        raise DataError("the config names no data set", "give the data loader a 'dataset'")
    total = reports[0]
    for report in reports[1:]:
        _require_same_classes(total, report)
        total.images += report.images
        total.sampled += report.sampled
        total.sizes += report.sizes
        total.notes += report.notes
        total.broken += report.broken
        if report.shards is not None:
            total.shards = (total.shards or 0) + report.shards
        if report.annotations is not None:
            total.annotations = (total.annotations or 0) + report.annotations
    return total


def check_config_data(cfg: Mapping[str, Any], inspection: Inspection = _DEFAULT) -> list[DataReport]:
    """Check the data sets of all data loaders of a config; equal ones are checked once.

    Those are the train, validation and test loaders, and k-NN's loader of the labelled images (split ``"bank"``).

    Args:
        cfg: an mmengine ``Config``, or a dict like it. The number of classes is the model's, where its heads agree.
        inspection: how each data set is checked.

    Returns:
        One report for each different data set, with ``split`` set.

    Raises:
        DataError: as :func:`check_dataset`; also if training and evaluation data have other classes or another order of
            them, since label k would then mean different things.
    """
    counts = numbers_of_classes(cfg.get("model") or {})
    num_classes = next(iter(counts)) if len(counts) == 1 else None
    reports: list[DataReport] = []
    seen = []
    loaders = {split: cfg.get(f"{split}_dataloader") for split in _SPLITS}
    loaders["bank"] = (cfg.get("test_cfg") or {}).get("bank_dataloader")
    for split, loader in loaders.items():
        dataset = (loader or {}).get("dataset")
        if dataset is None or dataset in seen:
            continue
        seen.append(dataset)
        masks = evaluates_masks(cfg.get(f"{split}_evaluator"))
        report = check_dataset(dataset, inspection, num_classes=num_classes, masks=masks)
        report.split = split
        if reports:
            _require_same_classes(reports[0], report)
        reports.append(report)
    return reports


def _check_plain(dataset: DatasetConfig, inspection: Inspection, num_classes: int | None) -> DataReport:
    if dataset.kind not in _CHECKS:
        return DataReport("unchecked", str(dataset.root))
    return _CHECKS[dataset.kind](dataset, inspection, num_classes)


def _require_same_classes(first: DataReport, second: DataReport) -> None:
    if first.classes and second.classes and first.classes != second.classes:
        only = sorted(set(first.classes) ^ set(second.classes))
        difference = f"not in both: {only[:5]}" if only else "they are in another order"
        raise DataError(
            f"the classes of {first.root} ({first.split or 'first'}) and {second.root} ({second.split or 'second'}) "
            f"differ; {difference}",
            "label k must mean the same class in both: give both the same class folders, categories or classes.json",
        )
