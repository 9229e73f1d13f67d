"""What the checks need to know from a data set's config."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emae_mm.data.decoding import DEFAULT_MAX_BROKEN

KINDS = {
    "ImageFolder": "imagefolder",
    "CustomDataset": "imagefolder",
    "ImageNet": "imagefolder",
    "CocoFormatDataset": "coco",
    "CocoDataset": "coco",
    "ADE20KFormatDataset": "ade20k",
    "ADE20KDataset": "ade20k",
    "BaseSegDataset": "ade20k",
    "OpenImages": "openimages",
    "TarShards": "shards",
}


@dataclass
class DatasetConfig:
    """One plain (not wrapped) data set of a config, with its pipeline.

    Attributes:
        cfg: the data set's own.
        pipeline: all steps, those of wrappers last.
        evaluates_masks: whether an evaluator compares masks with those of the annotations.
    """

    cfg: Mapping[str, Any]
    pipeline: list
    evaluates_masks: bool = False

    @property
    def kind(self) -> str:
        """A value of :data:`KINDS`, or ``"unchecked"``."""
        return KINDS.get(type_name(self.cfg), "unchecked")

    @property
    def root(self) -> Path:
        """``data_root``; the working directory when there is none."""
        return Path(self.cfg.get("data_root") or ".").expanduser()

    def path(self, relative: str) -> Path:
        """A path as mmengine joins it: absolute ones stay."""
        return self.root / relative

    def prefix(self, key: str) -> Path | None:
        """One of ``data_prefix``'s folders, or None; a plain string is the images' folder."""
        prefix = self.cfg.get("data_prefix") or self.cfg.get("split", "")  # mmpretrain's ImageNet has a split instead
        if isinstance(prefix, str):
            prefix = {"img_path": prefix, "img": prefix}
        if key not in prefix:
            return self.root if key in ("img", "img_path") else None
        return None if prefix[key] is None else self.path(prefix[key])

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names given in ``metainfo``, if any."""
        names = (self.cfg.get("metainfo") or {}).get("classes")
        return tuple(names) if names else None

    @property
    def zero_is_unlabelled(self) -> bool:
        """Whether label value 0 of a segmentation data set is ignored and 1 is the first class."""
        return self.cfg.get("reduce_zero_label", type_name(self.cfg) != "BaseSegDataset")

    def step(self, name: str) -> Mapping[str, Any]:
        """The pipeline's first step of that type, or an empty dict."""
        steps = (step for step in self.pipeline if isinstance(step, Mapping) and type_name(step) == name)
        return next(steps, {})

    @property
    def needs_masks(self) -> bool:
        """Whether every object must have a mask, for training or for evaluation."""
        return self.evaluates_masks or bool(self.step("LoadAnnotations").get("with_mask"))

    @property
    def max_broken(self) -> int:
        """How many broken images training tolerates."""
        step = self.step("LoadImage") or self.step("LoadImageRandomResizedCrop")
        return step.get("max_broken", DEFAULT_MAX_BROKEN) if step.get("on_broken") == "skip" else 0


def type_name(cfg: Mapping[str, Any]) -> str:
    """The bare class name of a config's ``type``, which may be scoped, dotted or a class."""
    kind = cfg.get("type", "")
    return kind.rsplit(".", 1)[-1] if isinstance(kind, str) else kind.__name__


def plain_datasets(cfg: Mapping[str, Any], outer: list | None = None) -> Iterator[DatasetConfig]:
    """The data sets within wrappers such as ``RepeatDataset``, ``ConcatDataset`` and ``MultiImageMixDataset``."""
    pipeline = [*(cfg.get("pipeline") or []), *(outer or [])]
    inner = cfg.get("dataset", cfg.get("datasets"))
    if inner is None:
        yield DatasetConfig(cfg, pipeline)
    else:
        for one in [inner] if isinstance(inner, Mapping) else inner:
            yield from plain_datasets(one, pipeline)


def numbers_of_classes(model: Any) -> set[int]:
    """Every ``num_classes`` within a model's config; 0 stands for a network without a classifier."""
    if isinstance(model, Mapping):
        own = {model["num_classes"]} if isinstance(model.get("num_classes"), int) else set()
        own.discard(0)
        return own.union(*(numbers_of_classes(value) for value in model.values()))
    if isinstance(model, (list, tuple)):
        return set().union(*(numbers_of_classes(value) for value in model))
    return set()


def evaluates_masks(evaluators: Any) -> bool:
    """Whether one of a config's evaluators (a dict, or a list of dicts) measures masks (``metric`` has "segm")."""
    evaluators = [evaluators] if isinstance(evaluators, Mapping) else evaluators or []
    metrics = [evaluator.get("metric") or () for evaluator in evaluators]
    return any("segm" in ([metric] if isinstance(metric, str) else metric) for metric in metrics)
