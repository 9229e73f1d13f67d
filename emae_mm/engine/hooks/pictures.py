"""Pictures of a transfer's last validation, beside its record."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel

from emae_mm.engine.layer_decay import unwrap
from emae_mm.engine.shown import Collected, Collector, spared
from emae_mm.engine.undisturbed import undisturbed
from emae_mm.errors import ConfigError
from emae_mm.leaderboard.records import RECORD_NAME, read_record, write_record
from emae_mm.pictures.attention import draw_attention
from emae_mm.pictures.confusion import LARGEST_MATRIX, class_iou, draw_confused_pairs, draw_confusion
from emae_mm.pictures.curves import KINDS, PrecisionRecall, draw_class_values, draw_precision_recall
from emae_mm.pictures.detections import draw_detections
from emae_mm.pictures.segmentation import draw_segmentation
from emae_mm.registry import HOOKS

FOLDER = "pictures"
Drawing = tuple[str, str, Callable[..., None]]
"""File name without ending, title, and what draws it: called with ``path`` and ``caption``."""


@HOOKS.register_module()
class PicturesHook(Hook):
    """Draws what the last validation (or the test) shows, into ``pictures/*.png``, and names the files in the record.

    Detections, segmentation maps and attention of a few images, evenly spread over the data set; confusion matrix,
    precision over recall and values of the classes from all images. In several processes the numbers are those of all
    of them; the main process draws. The pictures are made after the record has been written: one that cannot be drawn
    is a warning in the log. Precision over recall needs :class:`~emae_mm.evaluation.coco_metric.CocoMetric`. Under
    FSDP no attention is drawn.

    Args:
        images: so many images are shown, at most.
        threshold: least score of a detection that is shown.

    Raises:
        ConfigError: an impossible value.
    """

    priority = "LOWEST"  # among hooks of one priority the first registered comes first: the record's

    def __init__(self, images: int = 4, threshold: float = 0.5):
        if images < 1 or not 0 <= threshold <= 1:
            raise ConfigError(
                f"pictures: images={images}, threshold={threshold}",
                "use at least 1 image and a score from 0 to 1, or pictures=None for no pictures",
            )
        self.images, self.threshold = images, threshold
        self.collector: Collector | None = None
        self.curves: dict[str, PrecisionRecall] = {}

    def before_val_epoch(self, runner) -> None:
        loop = runner._train_loop  # the property would build the loop of a run that only validates
        if loop is None or isinstance(loop, dict) or loop.iter >= loop.max_iters:
            self._begin(runner, runner.val_dataloader)

    def before_test_epoch(self, runner) -> None:
        self._begin(runner, runner.test_dataloader)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.collector is not None:
            with undisturbed(unwrap(runner.model)):
                self.collector.add(data_batch, outputs)

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.after_val_iter(runner, batch_idx, data_batch, outputs)

    def after_knn(self, runner, predictions: Tensor, labels: Tensor) -> None:
        """Called by the k-NN test loop with what the process's share of images was taken for."""
        if self.collector is not None:
            self.collector.count_labels(labels, predictions)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self._end(runner.val_loop)

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        self._end(runner.test_loop)

    def after_run(self, runner) -> None:
        collector, self.collector = self.collector, None
        if collector is None or not is_main_process():
            return
        folder, caption, drawn = Path(runner.work_dir) / FOLDER, _caption(runner), {}
        with undisturbed(unwrap(runner.model)):
            for name, title, draw in self._drawings(collector.found):
                path = folder / f"{name}.png"
                with spared(str(path)):
                    draw(path=path, caption=caption)
                    drawn[f"{FOLDER}/{path.name}"] = title
        record = Path(runner.work_dir) / RECORD_NAME
        if drawn and record.is_file():
            write_record(replace(read_record(record), pictures=drawn), record)
        runner.logger.info(f"{len(drawn)} pictures are in {folder}")

    def _begin(self, runner, loader) -> None:
        model = None if isinstance(runner.model, FullyShardedDataParallel) else unwrap(runner.model)
        self.collector, self.curves = Collector(loader.dataset, self.images, self.threshold, model), {}

    def _end(self, loop) -> None:
        if self.collector is None:
            return
        self.collector.found.gather()
        for metric in getattr(getattr(loop, "evaluator", None), "metrics", ()):
            for kind, evaluation in getattr(metric, "evaluations", {}).items():
                self.curves[kind] = PrecisionRecall.of(evaluation)

    def _drawings(self, found: Collected) -> Iterator[Drawing]:
        classes = found.classes
        if found.detections:
            samples = list(found.detections.values())
            yield "detections", "Detections", partial(draw_detections, samples, classes, threshold=self.threshold)
        if found.segmentations:
            samples = list(found.segmentations.values())
            yield "segmentation", "Segmentation", partial(draw_segmentation, samples, classes, found.palette)
        if found.attention:
            yield "attention", "Attention", partial(draw_attention, *zip(*found.attention.values(), strict=True))
        if self.curves:
            values = {KINDS[kind]: curve.class_ap() for kind, curve in self.curves.items()}
            yield "precision_recall", "Precision over recall", partial(draw_precision_recall, self.curves)
            yield "class_ap", "AP of each class", partial(draw_class_values, values, classes)
        if found.counted:
            if len(classes) <= LARGEST_MATRIX:
                draw = partial(draw_confusion, found.confusion, classes, unit=found.counted)
                yield "confusion", "Confusion matrix", draw
            draw = partial(draw_confused_pairs, found.confusion, classes, unit=found.counted)
            yield "confused_pairs", "Most confused classes", draw
        if found.counted == "pixels":
            values = {"IoU": class_iou(found.confusion)}
            yield "class_iou", "IoU of each class", partial(draw_class_values, values, classes, label="IoU")


def _caption(runner) -> str:
    """What was run on what: from the record, or from the config where there is none."""
    path, static = Path(runner.work_dir) / RECORD_NAME, runner.cfg.get("record", {})
    if not path.is_file():
        return f"Data: {static.get('data', 'unknown')}. Protocol: {static.get('protocol', static.get('task', ''))}."
    record = read_record(path)
    number = f", {record.num_samples} images" if record.num_samples else ""
    return f"{record.method}, {record.arch}. Protocol: {record.protocol}. Data: {record.data}{number}."
