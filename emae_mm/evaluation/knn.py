"""Weighted k-nearest-neighbour classification of features by cosine similarity, as in DINO."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from emae_mm.errors import ConfigError, DataError

SIMILARITIES_AT_ONCE = 2**27
"""Similarities held in memory at a time (0.5 GiB of float32) unless ``chunk`` says otherwise."""


def _check(bank: Tensor, labels: Tensor, queries: Tensor, k: Sequence[int], num_classes: int, weighting: str) -> None:
    if weighting not in ("softmax", "uniform"):
        raise ConfigError(f"weighting={weighting!r} is unknown", "use 'softmax' or 'uniform'")
    if not k or min(k) < 1 or max(k) > len(bank):
        raise ConfigError(
            f"k={tuple(k)} does not fit a bank of {len(bank)} features", f"use numbers from 1 to {len(bank)}"
        )
    if bank.shape[1] != queries.shape[1]:
        raise ConfigError(
            f"bank features have {bank.shape[1]} dimensions, queries {queries.shape[1]}", "use one encoder for both"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"bank labels run from {int(labels.min())} to {int(labels.max())}, but there are {num_classes} classes",
            "check the class folders of the bank's data",
        )
    for name, features in (("bank", bank), ("query", queries)):
        if not torch.isfinite(features).all():
            raise DataError(f"{name} features hold NaN or infinity", "the encoder has diverged: use another checkpoint")


@torch.inference_mode()
def knn_predict(
    bank_features: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    *,
    num_classes: int,
    k: Sequence[int] = (10, 20, 100),
    temperature: float = 0.07,
    weighting: str = "softmax",
    chunk: int | None = None,
) -> dict[int, Tensor]:
    """Class scores of queries by their nearest neighbours in a bank.

    Features are normalised to unit length. A neighbour of similarity s votes for its class with exp(s / temperature)
    (``"softmax"``; the common factor of the softmax does not change the ranking and is left out up to a shift) or
    with 1 (``"uniform"``).

    Args:
        bank_features: (N, D), any floating type; computed in float32 on its device.
        bank_labels: (N,) integers in [0, num_classes).
        queries: (M, D), moved to the bank's device chunk by chunk.
        num_classes: number of classes.
        k: numbers of neighbours, each in [1, N].
        temperature: of the softmax, > 0.
        weighting: ``"softmax"`` or ``"uniform"``.
        chunk: queries at a time; by default so many that about 0.5 GiB of similarities are held.

    Returns:
        for each k the scores, (M, num_classes) float32 on the device of ``queries``. Rows are comparable within
        themselves only.

    Raises:
        ConfigError: impossible k, unknown weighting, or features of different widths.
        DataError: a label outside the classes, or features that are not finite.
    """
    _check(bank_features, bank_labels, queries, k, num_classes, weighting)
    bank = F.normalize(bank_features.float(), dim=1)
    labels = bank_labels.to(bank.device).long()
    chunk = chunk or max(SIMILARITIES_AT_ONCE // len(bank), 1)
    scores = {number: queries.new_empty(len(queries), num_classes, dtype=torch.float32) for number in k}
    for start in range(0, len(queries), chunk):
        part = F.normalize(queries[start : start + chunk].to(bank.device).float(), dim=1)
        similarity, index = (part @ bank.T).topk(max(k), dim=1)  # sorted: the first k are those of a smaller k
        neighbours = labels[index]
        # relative to the nearest neighbour: exp cannot overflow, whatever the temperature
        votes = torch.ones_like(similarity)
        if weighting == "softmax":
            votes = ((similarity - similarity[:, :1]) / temperature).exp()
        for number in k:
            sums = votes.new_zeros(len(part), num_classes)
            sums.scatter_add_(1, neighbours[:, :number], votes[:, :number])
            scores[number][start : start + chunk] = sums.to(queries.device)
    return scores


def count_correct(scores: Tensor, labels: Tensor, top: Sequence[int] = (1, 5)) -> list[int]:
    """How many rows have the true class among the best; of classes with equal scores the lower index comes first.

    Args:
        scores: (M, C).
        labels: (M,) integers in [0, C).
        top: how many best classes count as correct.

    Returns:
        one number for each entry of ``top``.
    """
    labels = labels.to(scores.device).long().unsqueeze(1)
    own = scores.gather(1, labels)
    tied_before = (scores == own) & (torch.arange(scores.shape[1], device=scores.device) < labels)
    rank = (scores > own).sum(1) + tied_before.sum(1)
    return [int((rank < number).sum()) for number in top]
