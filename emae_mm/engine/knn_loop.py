"""k-NN evaluation of a frozen encoder as a test loop of mmengine's Runner."""

from collections.abc import Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.runner import BaseLoop
from torch import Tensor
from torch.utils.data import DataLoader

from emae_mm.engine.layer_decay import unwrap
from emae_mm.errors import ConfigError, DataError
from emae_mm.evaluation.knn import count_correct, knn_predict
from emae_mm.registry import LOOPS

LOG_EVERY = 50


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes, by process; their numbers may differ."""
    counts = [int(count) for count in all_gather(torch.tensor(len(rows), device=rows.device))]
    padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])])
    return torch.cat([part[:count] for part, count in zip(all_gather(padded), counts, strict=True)])


def gather_samples(indices: Tensor, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Features and labels of all processes, each sample once, in the order of the data set.

    Samplers give some samples twice to make the processes' shares equal.
    """
    indices, features, labels = gather_rows(indices), gather_rows(features), gather_rows(labels)
    unique, inverse = indices.unique(return_inverse=True)
    first = torch.full_like(unique, len(indices)).scatter_reduce_(
        0, inverse, torch.arange(len(indices), device=indices.device), "amin"
    )
    return features[first], labels[first]


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
        ConfigError: ``primary_k`` is not in ``k``, or ``evaluator`` is not empty.
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
        self.classes = self._common_classes()

    def _common_classes(self) -> tuple[str, ...]:
        bank, queries = (
            tuple(loader.dataset.metainfo.get("classes") or ()) for loader in (self.bank_dataloader, self.dataloader)
        )
        if bank != queries or not bank:
            differing = sorted(set(bank) ^ set(queries))[:5]
            raise DataError(
                f"the bank has {len(bank)} classes, the test set {len(queries)}; differing: {differing}",
                "both folders must hold the same class folders",
            )
        return bank

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
        metrics = self._measure(bank, bank_labels, queries, labels)
        runner.call_hook("after_test_epoch", metrics=metrics)
        runner.call_hook("after_test")
        return metrics

    @torch.inference_mode()
    def _extract(self, model, loader: DataLoader, name: str, with_hooks: bool) -> tuple[Tensor, Tensor]:
        """(N, D) float32 features and (N,) labels of a data set, complete on every process."""
        indices, features, labels = [], [], []
        for step, batch in enumerate(loader):
            if with_hooks:
                self.runner.call_hook("before_test_iter", batch_idx=step, data_batch=batch)
            data = model.data_preprocessor(batch, False)
            features.append(model.backbone(data["inputs"])[-1].float())
            indices += [sample.sample_idx for sample in data["data_samples"]]
            labels += [int(sample.gt_label) for sample in data["data_samples"]]
            if with_hooks:
                self.runner.call_hook("after_test_iter", batch_idx=step, data_batch=batch, outputs=None)
            elif (step + 1) % LOG_EVERY == 0 or step + 1 == len(loader):
                print_log(f"k-NN {name}: {step + 1}/{len(loader)}", logger="current")
        stacked = torch.cat(features)
        return gather_samples(
            torch.tensor(indices, device=stacked.device), stacked, torch.tensor(labels, device=stacked.device)
        )

    def _measure(self, bank: Tensor, bank_labels: Tensor, queries: Tensor, labels: Tensor) -> dict[str, float]:
        """Every process classifies its share of the queries."""
        own = slice(get_rank(), None, get_world_size())
        top = (1, 5) if len(self.classes) > 5 else (1,)
        scores = knn_predict(
            bank,
            bank_labels,
            queries[own],
            num_classes=len(self.classes),
            k=self.k,
            temperature=self.temperature,
            weighting=self.weighting,
        )
        metrics = {}
        for k in self.k:
            correct = torch.tensor(count_correct(scores[k], labels[own], top), device=queries.device)
            all_reduce(correct)
            for number, count in zip(top, correct.tolist(), strict=True):
                metrics[f"knn/top{number}_k{k}"] = 100.0 * count / len(labels)
        primary = {f"knn/top{number}": metrics[f"knn/top{number}_k{self.primary_k}"] for number in top}
        return primary | metrics
