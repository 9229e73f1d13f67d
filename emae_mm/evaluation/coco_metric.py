"""COCO's average precision and recall, as pycocotools gives them."""

import contextlib
import io
import tempfile
from collections.abc import Sequence

from mmdet.datasets.api_wrappers import COCO, COCOeval
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.fileio import load
from mmengine.logging import MMLogger

from emae_mm.errors import ConfigError
from emae_mm.registry import METRICS

STATS = (
    "mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@1", "AR@10", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100",
)  # fmt: skip
"""OpenMMLab's names of pycocotools' twelve numbers, in its order."""
KINDS = ("bbox", "segm")


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """mmdet's ``CocoMetric`` with all of pycocotools' twelve numbers, neither rounded nor at other limits.

    mmdet rounds to three decimals (0.1 % AP, as large as the difference between two seeds), evaluates AP50 and the APs
    of sizes with up to 1000 detections an image instead of 100, and gives no number at all when nothing is detected.

    Args:
        ann_file: an ``instances_*.json`` with the ground truth.
        metric: ``"bbox"``, ``"segm"`` or both.
        **kwargs: ``collect_device``, ``prefix`` and others that say where results come from, as for mmdet's; those
            that choose other numbers (``proposal_nums``, ``iou_thrs``, ``metric_items``, ``classwise``) are refused.

    Attributes:
        evaluations: ``{kind: COCOeval}`` of the last evaluation, with precision at every recall and threshold.

    Raises:
        ConfigError: another ``metric``, or an option that chooses other numbers.
    """

    def __init__(self, ann_file: str, metric: str | Sequence[str] = KINDS, **kwargs):
        kinds = [metric] if isinstance(metric, str) else list(metric)
        if not kinds or not set(kinds) <= set(KINDS):
            raise ConfigError(f"metric={metric!r} of emae_mm.CocoMetric is unknown", f"use some of {list(KINDS)}")
        if other := {"proposal_nums", "iou_thrs", "metric_items", "classwise", "format_only"} & set(kwargs):
            raise ConfigError(
                f"emae_mm.CocoMetric has no option {sorted(other)}: its numbers are COCO's own", "use mmdet.CocoMetric"
            )
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(ann_file=ann_file, metric=kinds, **kwargs)
        self.evaluations: dict[str, COCOeval] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """``{"bbox_mAP": ..., ...}``: for each kind its :data:`STATS`, 0..1; -1 where there is no such ground truth."""
        self.cat_ids = self._coco_api.get_cat_ids(cat_names=self.dataset_meta["classes"])
        self.img_ids = self._coco_api.get_img_ids()
        with tempfile.TemporaryDirectory() as folder:
            files = self.results2json([prediction for _, prediction in results], self.outfile_prefix or f"{folder}/all")
            self.evaluations = {kind: self._evaluate(kind, load(files[kind])) for kind in self.metrics}
        return {
            f"{kind}_{name}": float(value)
            for kind, evaluation in self.evaluations.items()
            for name, value in zip(STATS, evaluation.stats, strict=True)
        }

    def _evaluate(self, kind: str, detections: list[dict]) -> COCOeval:
        if kind == "segm":
            for detection in detections:
                del detection["bbox"]  # sizes are those of masks; pycocotools would take the boxes'
        table = io.StringIO()
        with contextlib.redirect_stdout(table):
            evaluation = COCOeval(self._coco_api, self._loaded(detections), kind)
            evaluation.params.catIds, evaluation.params.imgIds = self.cat_ids, self.img_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        MMLogger.get_current_instance().info(f"{kind}:\n{table.getvalue()}")
        return evaluation

    def _loaded(self, detections: list[dict]) -> COCO:
        if detections:
            return self._coco_api.loadRes(detections)
        nothing = COCO()  # loadRes wants at least one detection
        nothing.dataset = {**self._coco_api.dataset, "annotations": []}
        nothing.createIndex()
        return nothing
