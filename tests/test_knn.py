"""k-NN against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from emae_mm.errors import ConfigError, DataError
from emae_mm.evaluation.knn import count_correct, knn_predict

CLASSES = 7


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(CLASSES, 16, generator=generator)
    labels = torch.randint(0, CLASSES, (300,), generator=generator)
    bank = centres[labels] + torch.randn(300, 16, generator=generator)
    query_labels = torch.randint(0, CLASSES, (90,), generator=generator)
    queries = centres[query_labels] + torch.randn(90, 16, generator=generator)
    return bank * torch.rand(300, 1, generator=generator), labels, queries, query_labels  # lengths must not matter


def sklearn_proba(bank, labels, queries, k, weights):
    model = KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute", weights=weights)
    return model.fit(bank.double().numpy(), labels.numpy()).predict_proba(queries.double().numpy())


def softmax_weights(temperature):
    return lambda distances: np.exp((1 - distances) / temperature)


@pytest.mark.parametrize("weighting", ["uniform", "softmax"])
def test_scores_are_those_of_scikit_learn(features, weighting):
    bank, labels, queries, _ = features
    ours = knn_predict(bank, labels, queries, num_classes=CLASSES, k=(1, 10, 37), weighting=weighting, chunk=32)
    for k, scores in ours.items():
        weights = "uniform" if weighting == "uniform" else softmax_weights(0.07)
        expected = sklearn_proba(bank, labels, queries, k, weights)
        # float32 similarities divided by 0.07 and exponentiated: 1e-7 / 0.07 per vote
        np.testing.assert_allclose((scores / scores.sum(1, keepdim=True)).numpy(), expected, atol=1e-5)


def test_chunks_types_and_temperatures_do_not_break_it(features):
    bank, labels, queries, query_labels = features
    whole = knn_predict(bank, labels, queries, num_classes=CLASSES, k=(10,))[10]
    pieces = knn_predict(bank, labels.int(), queries, num_classes=CLASSES, k=(10,), chunk=7)[10]
    torch.testing.assert_close(whole, pieces, atol=1e-4, rtol=1e-4)  # matmuls of another shape
    half = knn_predict(bank.bfloat16(), labels, queries.bfloat16(), num_classes=CLASSES, k=(10,))[10]
    assert half.dtype == torch.float32
    cold = knn_predict(bank, labels, queries, num_classes=CLASSES, k=(10,), temperature=1e-4)[10]
    assert torch.isfinite(cold).all()
    nearest = knn_predict(bank, labels, queries, num_classes=CLASSES, k=(1,))[1]
    assert torch.equal(cold.argmax(1), nearest.argmax(1)), "the limit of low temperature is the nearest neighbour"
    assert count_correct(whole, query_labels, (1,))[0] > 0.6 * len(queries)


def test_counting_breaks_ties_by_the_lower_class():
    scores = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 1.0, 2.0]])
    assert count_correct(scores, torch.tensor([0, 1, 0]), (1,)) == [3]
    assert count_correct(scores, torch.tensor([1, 2, 1]), (1, 2, 3)) == [0, 2, 3]


def test_bad_input_is_named(features):
    bank, labels, queries, _ = features
    good = dict(num_classes=CLASSES, k=(5,))
    for change, error, message in [
        (dict(k=(5, 301)), ConfigError, "301"),
        (dict(k=(0,)), ConfigError, "k="),
        (dict(weighting="rank"), ConfigError, "rank"),
        (dict(num_classes=3), DataError, "3 classes"),
    ]:
        with pytest.raises(error, match=message):
            knn_predict(bank, labels, queries, **(good | change))
    with pytest.raises(ConfigError, match="dimensions"):
        knn_predict(bank, labels, queries[:, :3], **good)
    with pytest.raises(DataError, match="NaN"):
        knn_predict(bank, labels, queries.index_fill(0, torch.tensor([3]), float("nan")), **good)
