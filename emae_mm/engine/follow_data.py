"""What a config takes from the data it is given: roots, annotation files, names and numbers of classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from emae_mm.errors import ConfigError

NUM_CLASSES = {"ImageNet-1K": 1000, "COCO": 80, "ADE20K": 150}


def set_everywhere(node: Any, key: str, value: Any) -> None:
    """Give every ``key`` within a config the same value, in place."""
    if isinstance(node, dict):
        for name in node:
            if name == key:
                node[name] = value
            else:
                set_everywhere(node[name], key, value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            set_everywhere(item, key, value)


def _plain_dataset(loader: dict | None) -> dict | None:
    dataset = (loader or {}).get("dataset")
    while dataset is not None and "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def data_name(cfg: Config) -> str:
    """What a config for any data calls its data: the name of the data root's folder."""
    dataset = _plain_dataset(cfg.get("train_dataloader") or cfg.get("test_dataloader")) or {}
    return Path(dataset.get("data_root") or "").resolve().name or "unnamed"


def follow_annotations(cfg: Config) -> None:
    """COCO's evaluators read the annotation file of the data they evaluate."""
    for split in ("val", "test"):
        dataset = _plain_dataset(cfg.get(f"{split}_dataloader"))
        evaluators = cfg.get(f"{split}_evaluator") or []
        for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
            if dataset and "ann_file" in evaluator and dataset.get("ann_file"):
                evaluator["ann_file"] = str(Path(dataset.get("data_root") or "") / dataset["ann_file"])


def chosen_counts(overrides: dict[str, Any]) -> dict[str, int]:
    """The numbers of classes that the command line sets in the model, by their dotted keys."""
    found = {}
    for key, value in overrides.items():
        if isinstance(value, dict):
            found |= chosen_counts({f"{key}.{inner}": one for inner, one in value.items()})
        elif key.startswith("model.") and key.endswith(".num_classes"):
            found[key] = value
    return found


def read_classes(cfg: Config) -> None:
    """Set every ``num_classes`` of the model to what the training (or test) data has.

    A record that would claim a well-known data set which has another number of classes names the data's folder instead.

    Raises:
        ConfigError: the command line sets another number (``cfg.chosen_classes``), or a loss has another number of
            class weights.
    """
    from emae_mm.data.checks.config import plain_datasets
    from emae_mm.data.classes import classes_of_ade20k, classes_of_coco, classes_of_imagefolder

    loader = cfg.get("train_dataloader") or cfg.get("test_dataloader")
    for dataset in plain_datasets(loader["dataset"]) if loader else ():
        kind = str(dataset.cfg.get("type")).removeprefix("emae_mm.")
        if kind == "ImageFolder" and dataset.cfg.get("with_label", True):
            classes = dataset.classes or classes_of_imagefolder(dataset.prefix("img_path"))
        elif kind == "CocoFormatDataset":
            classes = dataset.classes or classes_of_coco(dataset.path(dataset.cfg["ann_file"]))
        elif kind == "ADE20KFormatDataset":
            classes = dataset.classes or classes_of_ade20k(dataset.root)
        else:
            continue
        for key, count in cfg.get("chosen_classes", {}).items():
            if count != len(classes):
                raise ConfigError(
                    f"{key}={count}, but the data in {dataset.root} have {len(classes)} classes",
                    "leave it out: heads follow the data; or check --data-root",
                )
        for key, weights in _class_weights(cfg.model, "model"):
            if len(weights) not in (len(classes), len(classes) + 1):  # one more: a detector's background
                raise ConfigError(
                    f"{key} has {len(weights)} weights, but the data in {dataset.root} have {len(classes)} classes",
                    f"give --cfg-options {key}=None, or one weight for each class",
                )
        set_everywhere(cfg.model, "num_classes", len(classes))
        record = cfg.get("record", {})
        if len(classes) != NUM_CLASSES.get(record.get("data"), len(classes)):
            record.data = data_name(cfg)
        return


def _class_weights(node: Any, path: str) -> Iterator[tuple[str, list]]:
    """Every list ``class_weight`` within a model's config, with its dotted key."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "class_weight" and isinstance(value, (list, tuple)):
                yield f"{path}.{key}", value
            else:
                yield from _class_weights(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _class_weights(item, f"{path}.{index}")
