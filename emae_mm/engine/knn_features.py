"""Features of data sets over all processes, and what nearest neighbours say of them: for test loop and probe."""

from collections.abc import Callable, Sequence

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor
from torch.utils.data import DataLoader

from emae_mm.errors import DataError
from emae_mm.evaluation.knn import count_correct, knn_predict


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


def common_classes(bank: DataLoader, queries: DataLoader) -> tuple[str, ...]:
    """The classes of both data sets.

    Raises:
        DataError: they differ, or there are none.
    """
    known, asked = (tuple(loader.dataset.metainfo.get("classes") or ()) for loader in (bank, queries))
    if known != asked or not known:
        differing = sorted(set(known) ^ set(asked))[:5]
        raise DataError(
            f"the bank has {len(known)} classes, the test set {len(asked)}; differing: {differing}",
            "both folders must hold the same class folders",
        )
    return known


@torch.no_grad()
def extract_features(
    loader: DataLoader,
    preprocess: Callable[[dict, bool], dict],
    encode: Callable[[Tensor], Tensor],
    before: Callable[[int, dict], None] = lambda step, batch: None,
    after: Callable[[int, dict], None] = lambda step, batch: None,
) -> tuple[Tensor, Tensor]:
    """(N, D) float32 features and (N,) labels of a data set, complete on every process, in the data set's order.

    Args:
        loader: gives each process its share.
        preprocess: a model's data preprocessor.
        encode: images (B, C, H, W), as preprocessed, to features (B, D).
        before: called with step and batch before each batch.
        after: likewise after it.
    """
    indices, features, labels = [], [], []
    for step, batch in enumerate(loader):
        before(step, batch)
        data = preprocess(batch, False)
        features.append(encode(data["inputs"]).float())
        indices += [sample.sample_idx for sample in data["data_samples"]]
        labels += [int(sample.gt_label) for sample in data["data_samples"]]
        after(step, batch)
    stacked = torch.cat(features)
    return gather_samples(
        torch.tensor(indices, device=stacked.device), stacked, torch.tensor(labels, device=stacked.device)
    )


def knn_metrics(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    k: Sequence[int],
    primary_k: int,
    temperature: float,
    weighting: str,
    seen: Callable[[Tensor, Tensor], None] = lambda predictions, labels: None,
) -> dict[str, float]:
    """Metrics in per cent, see :class:`~emae_mm.engine.knn_loop.KNNTestLoop`; each process classifies its share.

    ``seen`` is called with the (n,) classes that ``primary_k`` neighbours vote for in that share, and the true ones.
    """
    own = slice(get_rank(), None, get_world_size())
    top = (1, 5) if num_classes > 5 else (1,)
    scores = knn_predict(
        bank,
        bank_labels,
        queries[own],
        num_classes=num_classes,
        k=k,
        temperature=temperature,
        weighting=weighting,
    )
    seen(scores[primary_k].argmax(dim=1), labels[own])
    metrics = {}
    for number in k:
        correct = torch.tensor(count_correct(scores[number], labels[own], top), device=queries.device)
        all_reduce(correct)
        for best, count in zip(top, correct.tolist(), strict=True):
            metrics[f"knn/top{best}_k{number}"] = 100.0 * count / len(labels)
    primary = {f"knn/top{best}": metrics[f"knn/top{best}_k{primary_k}"] for best in top}
    return primary | metrics
