"""k-NN evaluation of a frozen encoder as a test loop of mmengine's Runner."""

from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.runner import BaseLoop
from torch import Tensor
from torch.utils.data import DataLoader

from emae_mm.engine.knn_features import common_classes, extract_features, gather_samples, knn_metrics
from emae_mm.engine.layer_decay import unwrap
from emae_mm.errors import ConfigError
from emae_mm.registry import LOOPS

__all__ = ["KNNTestLoop", "gather_samples"]

LOG_EVERY = 50


@LOOPS.register_module()
class KNNTestLoop(BaseLoop):
    """Classifies the test set by the nearest neighbours of its features in a bank of labelled ones.

    The features are the last output of ``model.backbone`` for the test pipeline's images. A test run initialises no
    weights, so the loop has the model do it (which loads ``pretrained``) unless a checkpoint was loaded.

    Metrics, in per cent: ``knn/top1_k{k}`` for every k and, with more than five classes, ``knn/top5_k{k}``;
    ``knn/top1`` and ``knn/top5`` repeat those of ``primary_k``.

    Args:
        runner: the Runner.
        dataloader: of the queries.
        evaluator: mmengine's Runner asks for one; it must be empty, since the loop itself measures.
        bank_dataloader: of the labelled bank, usually the training images in the test pipeline.
        k: numbers of neighbours.
        primary_k: the one of them that is reported as ``knn/top1`` and ``knn/top5``.
        temperature: see :func:`~emae_mm.evaluation.knn.knn_predict`.
        weighting: likewise.

    Raises:
        ConfigError: ``primary_k`` is not in ``k``, a k is larger than the bank, or ``evaluator`` is not empty.
        DataError: bank and queries have different classes.
    """

    def __init__(
        self,
        runner,
        dataloader: DataLoader | dict,
        bank_dataloader: DataLoader | dict,
        evaluator: Sequence = (),
        k: Sequence[int] = (10, 20, 100),
        primary_k: int = 20,
        temperature: float = 0.07,
        weighting: str = "softmax",
    ):
        super().__init__(runner, dataloader)
        if evaluator:
            raise ConfigError("test_evaluator is set, but KNNTestLoop measures by itself", "set test_evaluator = []")
        if primary_k not in k:
            raise ConfigError(f"primary_k={primary_k} is not among k={tuple(k)}", "add it to k, or choose one of them")
        if isinstance(bank_dataloader, dict):
            bank_dataloader = runner.build_dataloader(bank_dataloader, seed=runner.seed)
        self.bank_dataloader = bank_dataloader
        self.k, self.primary_k = tuple(k), primary_k
        self.temperature, self.weighting = temperature, weighting
        images = len(bank_dataloader.dataset)
        if min(k) < 1 or max(k) > images:
            raise ConfigError(
                f"test_cfg.k={tuple(k)} does not fit a bank of {images} images", f"use numbers from 1 to {images}"
            )
        self.classes = common_classes(bank_dataloader, self.dataloader)

    def run(self) -> dict[str, float]:
        """Extract, classify, report; returns the metrics."""
        runner = self.runner
        runner.call_hook("before_test")
        runner.call_hook("before_test_epoch")
        model = unwrap(runner.model)
        if not runner._has_loaded and not model.is_init:
            model.init_weights()
        runner.model.eval()
        bank, bank_labels = self._extract(model, self.bank_dataloader, "bank", with_hooks=False)
        queries, labels = self._extract(model, self.dataloader, "queries", with_hooks=True)
        metrics = knn_metrics(
            bank,
            bank_labels,
            queries,
            labels,
            num_classes=len(self.classes),
            k=self.k,
            primary_k=self.primary_k,
            temperature=self.temperature,
            weighting=self.weighting,
            seen=lambda predictions, labels: runner.call_hook("after_knn", predictions=predictions, labels=labels),
        )
        runner.call_hook("after_test_epoch", metrics=metrics)
        runner.call_hook("after_test")
        return metrics

    def _extract(self, model, loader: DataLoader, name: str, with_hooks: bool) -> tuple[Tensor, Tensor]:
        def before(step: int, batch: dict) -> None:
            if with_hooks:
                self.runner.call_hook("before_test_iter", batch_idx=step, data_batch=batch)

        def after(step: int, batch: dict) -> None:
            if with_hooks:
                self.runner.call_hook("after_test_iter", batch_idx=step, data_batch=batch, outputs=None)
            elif (step + 1) % LOG_EVERY == 0 or step + 1 == len(loader):
                print_log(f"k-NN {name}: {step + 1}/{len(loader)}", logger="current")

        return extract_features(
            loader, model.data_preprocessor, lambda images: model.backbone(images)[-1], before, after
        )
