"""A quick run of a full-size protocol: a few steps of every part. Its record never claims the protocol."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from emae_mm.data.checks import check_dataset
from emae_mm.data.checks.config import DatasetConfig, plain_datasets
from emae_mm.fileio import write_text
from emae_mm.leaderboard.schema import QUICK_PREFIX

STEPS = 2
"""Optimiser steps of a quick run."""
NEIGHBOURS = 5
BANK_BATCHES = 8
EVALUATED_BATCHES = 2
ANNOTATIONS = "quick_{name}"
"""What the part of an annotation file is called that a quick run evaluates on."""


def shorten(cfg: Config, batch: int, processes: int) -> None:
    """Make a full-size config a quick run, in place.

    Training takes :data:`STEPS` steps of ``batch * processes`` images at the warm-up's first rates, evaluation a few
    images; the record's protocol says so. With COCO's format :func:`write_parts` must have been called before the run.

    Args:
        cfg: from :func:`emae_mm.engine.launch.prepare_config`.
        batch: images each process takes at a step.
        processes: of the run.
    """
    total = batch * processes
    evaluated = EVALUATED_BATCHES * total
    images = "1 image" if total == 1 else f"{total} images"
    steps = f"{STEPS} steps of {images}" if cfg.get("train_cfg") else f"{BANK_BATCHES * total} images as the bank"
    if cfg.get("train_cfg"):
        _shorten_training(cfg, batch, total)
    for split in ("val", "test"):
        if cfg.get(f"{split}_dataloader"):
            _take(cfg[f"{split}_dataloader"], evaluated, min(batch, 4))
            _evaluate_part(cfg, split)
    if bank := (cfg.get("test_cfg") or {}).get("bank_dataloader"):
        _take(bank, BANK_BATCHES * total, batch)
        cfg.test_cfg.k, cfg.test_cfg.primary_k = (NEIGHBOURS,), NEIGHBOURS
    _show_everything(cfg)
    cfg.record.protocol = f"{QUICK_PREFIX}{cfg.record.protocol}: {steps}, {evaluated} evaluated"


def _shorten_training(cfg: Config, batch: int, total: int) -> None:
    _take(cfg.train_dataloader, STEPS * total, batch)
    cfg.global_batch_size = total
    by_epoch = "max_epochs" in cfg.train_cfg
    length = 1 if by_epoch else STEPS
    cfg.train_cfg["max_epochs" if by_epoch else "max_iters"] = cfg.train_cfg.val_interval = length
    cfg.default_hooks.checkpoint.interval = length
    # full rates are meant for large batches: the warm-up keeps those of so few steps small
    cfg.param_scheduler = [part for part in cfg.param_scheduler if part.get("begin", 0) == 0]


def _take(loader: dict, images: int, batch: int) -> None:
    """Let a data loader see that many images of its data set, in batches that suit them, without worker processes."""
    loader.batch_size, loader.num_workers, loader.persistent_workers = batch, 0, False
    loader.pop("prefetch_factor", None)
    for dataset in plain_datasets(loader.dataset):
        dataset.cfg["indices"] = _spread(dataset, images) if dataset.kind == "imagefolder" else images


def _spread(dataset: DatasetConfig, images: int) -> list[int]:
    """Indices at equal distances: folders of classes follow each other."""
    from emae_mm.registry import DATASETS

    count = len(DATASETS.build({**dataset.cfg, "pipeline": [], "lazy_init": False}))
    taken = min(images, count)
    return [index * count // taken for index in range(taken)]


def _evaluate_part(cfg: Config, split: str) -> None:
    """COCO's evaluators count every object of the annotation file: give them the file of the part that is seen."""
    evaluators = cfg.get(f"{split}_evaluator") or []
    for dataset in plain_datasets(cfg[f"{split}_dataloader"].dataset):
        if dataset.kind == "coco":
            part = _part(cfg, dataset.cfg["ann_file"])
            dataset.cfg["ann_file"] = part
            for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
                if "ann_file" in evaluator:
                    evaluator["ann_file"] = part


def _part(cfg: Config, ann_file: str) -> str:
    return str((Path(cfg.work_dir) / ANNOTATIONS.format(name=Path(ann_file).name)).resolve())


def _show_everything(cfg: Config) -> None:
    """After so few steps every detection is below the usual score threshold; drawing and scoring would see none."""
    rcnn = ((cfg.model.get("test_cfg") or {}).get("rcnn")) or {}
    if "score_thr" in rcnn:
        rcnn["score_thr"] = 0.0


def write_parts(full: Config, short: Config) -> None:
    """Write the part of each COCO annotation file that a quick run evaluates on: its first images with objects.

    Args:
        full: the config before :func:`shorten`.
        short: the same after it.

    Raises:
        DataError: the annotation file cannot be used.
    """
    for before, after in zip(_evaluated(full), _evaluated(short), strict=True):
        if before.kind == "coco" and not (target := Path(after.cfg["ann_file"])).is_file():
            check_dataset(before.cfg)
            source = before.path(before.cfg["ann_file"])
            write_text(target, json.dumps(_first(json.loads(source.read_text(encoding="utf-8")), after.cfg["indices"])))


def _evaluated(cfg: Config) -> Iterator[DatasetConfig]:
    for split in ("val", "test"):
        if cfg.get(f"{split}_dataloader"):
            yield from plain_datasets(cfg[f"{split}_dataloader"].dataset)


def _first(content: dict[str, Any], images: int) -> dict[str, Any]:
    with_objects = {one["image_id"] for one in content["annotations"] if not one.get("iscrowd")}
    chosen = [image for image in content["images"] if image["id"] in with_objects][:images]
    kept = {image["id"] for image in chosen}
    annotations = [one for one in content["annotations"] if one["image_id"] in kept]
    return {**content, "images": chosen, "annotations": annotations}
