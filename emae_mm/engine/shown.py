"""What a validation keeps for its pictures: a few images and one confusion matrix, however large the data are."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.utils.data import Dataset

from emae_mm.models.vit import ViTEncoder
from emae_mm.pictures.attention import AttentionMaps, attention_maps
from emae_mm.pictures.confusion import count_confusion
from emae_mm.pictures.detections import DetectionSample, Instances
from emae_mm.pictures.segmentation import SegmentationSample
from emae_mm.registry import TRANSFORMS

_WORDNET = re.compile(r"n\d{8}")
MOST_INSTANCES = 40
"""Detections of one image that are kept, the highest scores."""


@contextmanager
def spared(what: str) -> Iterator[None]:
    """Whatever goes wrong with a picture is a warning in the log: the run and its record go on."""
    try:
        yield
    except Exception:
        MMLogger.get_current_instance().warning(f"{what}: not drawn; the result is untouched", exc_info=True)


@dataclass
class Collected:
    """What all processes kept.

    Attributes:
        classes: names.
        palette: one RGB colour, 0..255, a class; empty where the data set has none.
        failed: whether something went wrong, so that the counts are not those of all images.
        counted: ``"images"`` or ``"pixels"``: what the confusion matrix counts; empty where there is none.
        confusion: (C, C) int64, rows the true class.
        detections, segmentations, attention: by the image's index in the data set.
    """

    classes: tuple[str, ...]
    palette: tuple = ()
    failed: bool = False
    counted: str = ""
    confusion: np.ndarray | None = None
    detections: dict[int, DetectionSample] = field(default_factory=dict)
    segmentations: dict[int, SegmentationSample] = field(default_factory=dict)
    attention: dict[int, tuple[np.ndarray, AttentionMaps]] = field(default_factory=dict)

    def gather(self) -> None:
        """Make it that of all processes, on each; all must call this. Where one failed, nothing counts as counted."""
        counts = torch.from_numpy(self.confusion)
        all_reduce(counts)
        self.confusion = counts.numpy()
        parts = all_gather_object((self.counted, self.detections, self.segmentations, self.attention, self.failed))
        self.failed = any(part[-1] for part in parts)
        self.counted = "" if self.failed else max(part[0] for part in parts)
        for place, name in enumerate(("detections", "segmentations", "attention"), start=1):
            merged = {index: sample for part in parts for index, sample in part[place].items()}
            setattr(self, name, dict(sorted(merged.items())))


class Collector:
    """Looks at the batches of one validation.

    Args:
        dataset: validated, in its own order (mmengine's ``DefaultSampler`` without shuffling).
        images: images that are kept, evenly spread over the data set.
        threshold: least score of a detection that is kept.
        model: whose ``backbone`` is asked for its attention, where it is a
            :class:`~emae_mm.models.vit.ViTEncoder`; None for no attention.
    """

    def __init__(self, dataset: Dataset, images: int, threshold: float, model: nn.Module | None):
        self.dataset, self.threshold, self.model, self.passed = dataset, threshold, model, 0
        info = getattr(dataset, "metainfo", {})
        classes, palette = readable(tuple(info.get("classes") or ())), tuple(info.get("palette") or ())
        self.found = Collected(classes, palette, confusion=np.zeros((len(classes), len(classes)), np.int64))
        chosen = np.unique(np.linspace(0, len(dataset) - 1, images).round().astype(int)) if len(dataset) else []
        named = {int(index): dataset.get_data_info(int(index)) for index in chosen}
        self.wanted = {info["img_path"]: index for index, info in named.items() if "img_path" in info}

    def add(self, batch: dict, outputs: Sequence | None) -> None:
        """Take from a batch, as the data loader gives it, and the model's predictions for it (None in k-NN).

        After a first failure, which is a warning in the log, further batches are passed over.
        """
        if not self.found.failed:
            self.found.failed = True
            with spared("this validation"):
                self._add(batch, outputs)
                self.found.failed = False

    def _add(self, batch: dict, outputs: Sequence | None) -> None:
        inputs = batch["inputs"]
        if isinstance(inputs[0], (list, tuple)):
            inputs = inputs[0]  # the first of several versions of each image (a multi-scale test)
        samples = list(outputs if outputs is not None else batch["data_samples"])
        left = -(-(len(self.dataset) - get_rank()) // get_world_size()) - self.passed
        self.passed += len(samples)
        samples = samples[: max(left, 0)]  # the sampler repeats images to make the processes' shares equal
        if outputs is not None and samples:
            self._count(samples)
        for sample, image in zip(samples, inputs, strict=False):
            index = self.wanted.get(sample.get("img_path"))
            if index is not None:
                self._keep(index, sample, image)

    def count_labels(self, truth: Tensor, predicted: Tensor) -> None:
        """Add (n,) true and predicted classes of images to the confusion matrix."""
        self._add_counts(truth.cpu().numpy(), predicted.cpu().numpy(), "images")

    def _count(self, samples: list) -> None:
        if "pred_sem_seg" in samples[0]:
            for sample in samples:
                self._add_counts(*_label_maps(sample), "pixels")
        elif "pred_label" in samples[0]:  # all at once: a matrix of 1000 classes is large
            labels = [(sample.gt_label, sample.pred_label) for sample in samples]
            self.count_labels(*(torch.cat(part) for part in zip(*labels, strict=True)))

    def _add_counts(self, truth: np.ndarray, predicted: np.ndarray, counted: str) -> None:
        self.found.confusion += count_confusion(truth, predicted, len(self.found.classes))
        self.found.counted = counted

    def _keep(self, index: int, sample: Any, inputs: Tensor) -> None:
        if "pred_instances" in sample:
            info = self.dataset.get_data_info(index)
            image = _read(info)
            truth = true_instances(info.get("instances", ()), image.shape[:2])
            detected = detected_instances(sample.pred_instances, self.threshold)
            self.found.detections[index] = DetectionSample(image, truth, detected)
        elif "pred_sem_seg" in sample:
            image = _read(self.dataset.get_data_info(index))
            self.found.segmentations[index] = SegmentationSample(image, *_label_maps(sample))
        model, self.model = self.model, None  # without attention, if this fails
        if model is not None and isinstance(model.backbone, ViTEncoder):
            with spared("attention"):
                self.found.attention[index] = self._attention(model, inputs)
                self.model = model

    @staticmethod
    def _attention(model: nn.Module, inputs: Tensor) -> tuple[np.ndarray, AttentionMaps]:
        """One image as the encoder sees it (the middle of larger ones than it was built for), and the maps."""
        preprocessor, encoder = model.data_preprocessor, model.backbone
        batch = preprocessor(dict(inputs=inputs.unsqueeze(0), data_samples=None), False)["inputs"]
        sides = [
            min(side, patches * encoder.patch_size)
            for side, patches in zip(batch.shape[-2:], encoder.grid_size, strict=True)
        ]
        top, left = ((side - kept) // 2 for side, kept in zip(batch.shape[-2:], sides, strict=True))
        batch = batch[..., top : top + sides[0], left : left + sides[1]]
        pixels = batch[0] * preprocessor.std.view(-1, 1, 1) + preprocessor.mean.view(-1, 1, 1)
        image = pixels.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
        return image, attention_maps(encoder, batch)[0]


def readable(classes: tuple[str, ...]) -> tuple[str, ...]:
    """ImageNet's folder names, such as n01440764, as words ("tench"), where words are known and unambiguous."""
    if not classes or not all(_WORDNET.fullmatch(name) for name in classes):
        return classes
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet-22k")
    words = {name: known.label_name_to_description(name).partition(",")[0]
             for name in classes if name in known.label_names()}  # fmt: skip
    often = Counter(words.values())
    return tuple(words[name] if name in words and often[words[name]] == 1 else name for name in classes)


def true_instances(annotations: Sequence[dict], size: tuple[int, int]) -> Instances:
    """One image's annotations in mmdet's layout, crowds left out, as arrays; masks have the given (H, W)."""
    from pycocotools import mask as coder

    kept = [one for one in annotations if not one.get("ignore_flag")]
    masks = []
    for one in kept:
        shape = one.get("mask")
        if isinstance(shape, list) or (isinstance(shape, dict) and isinstance(shape["counts"], list)):
            shape = coder.frPyObjects(shape, *size)
        if shape:
            masks.append(coder.decode(coder.merge(shape) if isinstance(shape, list) else shape).astype(bool))
    return Instances(
        np.array([one["bbox"] for one in kept], np.float64).reshape(-1, 4),
        np.array([one["bbox_label"] for one in kept], np.int64),
        np.stack(masks) if masks and len(masks) == len(kept) else None,
    )


def detected_instances(predicted: Any, threshold: float) -> Instances:
    """One image's predictions by mmdet with at least this score, the highest first, as arrays."""
    order = predicted.scores.argsort(descending=True, stable=True)[:MOST_INSTANCES]
    kept = predicted[order[predicted.scores[order] >= threshold]]
    masks = kept.masks.cpu().numpy() if "masks" in kept else None
    return Instances(*(kept[name].cpu().numpy() for name in ("bboxes", "labels")), masks, kept.scores.cpu().numpy())


def _label_maps(sample: Any) -> list[np.ndarray]:
    """(H, W) true and predicted classes of mmseg's sample."""
    return [part.data.squeeze(0).cpu().numpy() for part in (sample.gt_sem_seg, sample.pred_sem_seg)]


def _read(info: dict) -> np.ndarray:
    """The image of a data set's entry as it is on disk: (H, W, 3) uint8 RGB."""
    loaded = TRANSFORMS.build(dict(type="emae_mm.LoadImage"))(info)["img"]
    return np.ascontiguousarray(loaded[..., ::-1])
