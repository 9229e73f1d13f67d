"""mIoU from our data set, pipeline and evaluator, against a confusion matrix counted pixel by pixel."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from PIL import Image

from emae_mm.registry import DATASETS

SEGMENTATION = "configs/segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512.py"
NAMES = ["wall", "sky", "tree", "road", "bed", "lamp"]
SIZES = [(40, 30), (23, 51), (16, 16), (64, 20)]  # width, height
UNLABELLED, IGNORED = 0, 255


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Label maps with all values but class 5 ("bed"), among them 0 (unlabelled) and 255 (ignored)."""
    root, rng = tmp_path_factory.mktemp("ade20k"), np.random.default_rng(0)
    for folder in ("images/validation", "annotations/validation"):
        (root / folder).mkdir(parents=True)
    for index, (width, height) in enumerate(SIZES):
        picture = rng.integers(256, size=(height, width, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / f"images/validation/{index}.jpg")
        values = rng.choice(
            [UNLABELLED, 1, 2, 3, 4, 6, IGNORED], size=(height, width), p=[0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1]
        )
        Image.fromarray(values.astype(np.uint8)).save(root / f"annotations/validation/{index}.png")
    (root / "classes.json").write_text(json.dumps(dict(classes=NAMES)))
    return root


def dataset_and_evaluator(repo, root):
    """Of the full-size config, on the given folder; label maps keep their size, as in the config."""
    cfg = Config.fromfile(repo / SEGMENTATION)
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, data_root=str(root)))
        evaluator = Evaluator([cfg.val_evaluator])
    evaluator.dataset_meta = dataset.metainfo
    return dataset, evaluator


def evaluate(dataset, evaluator, predictions: list[np.ndarray]) -> dict[str, float]:
    for index, predicted in enumerate(predictions):
        sample = dataset[index]["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(predicted)[None].long())
        evaluator.process([sample], None)
    return evaluator.evaluate(len(dataset))


def confusion_matrix(root, predictions: list[np.ndarray]) -> np.ndarray:
    """Rows: what the files say, as classes 0..5; columns: what was predicted. One pixel after the other."""
    matrix = np.zeros((len(NAMES), len(NAMES)), np.int64)
    for index, predicted in enumerate(predictions):
        stored = np.array(Image.open(root / f"annotations/validation/{index}.png"))
        for value, guess in zip(stored.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if value not in (UNLABELLED, IGNORED):
                matrix[value - 1, guess] += 1
    return matrix


def scores(matrix: np.ndarray) -> dict[str, float]:
    """In per cent; classes that are neither in the files nor predicted do not count."""
    ious, accuracies = [], []
    for index in range(len(matrix)):
        hit, stored, predicted = matrix[index, index], matrix[index].sum(), matrix[:, index].sum()
        if stored + predicted - hit:
            ious.append(hit / (stored + predicted - hit))
        if stored:
            accuracies.append(hit / stored)
    return dict(mIoU=100 * np.mean(ious), mAcc=100 * np.mean(accuracies), aAcc=100 * matrix.trace() / matrix.sum())


def guesses(rng, without: int | None = None) -> list[np.ndarray]:
    allowed = [index for index in range(len(NAMES)) if index != without]
    return [rng.choice(allowed, size=(height, width)) for width, height in SIZES]


@pytest.mark.parametrize("without", [None, 4], ids=["absent class predicted", "absent class never predicted"])
def test_scores_are_those_of_a_confusion_matrix(repo, root, without):
    rng = np.random.default_rng(1)
    predictions = guesses(rng, without)
    for index in range(len(predictions)):  # half right, so that the numbers are not all alike
        stored = np.array(Image.open(root / f"annotations/validation/{index}.png")).astype(int)
        right = (rng.random(stored.shape) < 0.5) & (stored != UNLABELLED) & (stored != IGNORED)
        predictions[index] = np.where(right, stored - 1, predictions[index])
    expected = scores(confusion_matrix(root, predictions))
    found = evaluate(*dataset_and_evaluator(repo, root), predictions)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.00501), name  # mmseg rounds to 0.01 %
    assert 20 < found["mIoU"] < 80


def test_perfect_predictions_have_full_marks_and_shifted_ones_not(repo, root):
    dataset, evaluator = dataset_and_evaluator(repo, root)
    truth = [dataset[index]["data_samples"].gt_sem_seg.data[0].numpy() for index in range(len(SIZES))]
    for labels, (width, height) in zip(truth, SIZES, strict=True):
        assert labels.shape == (height, width)  # the size of the file, though the image was resized
    perfect = [np.where(labels == IGNORED, 3, labels) for labels in truth]  # what is ignored may be anything
    assert evaluate(dataset, evaluator, perfect) == dict(aAcc=100.0, mIoU=100.0, mAcc=100.0)
    assert evaluate(dataset, evaluator, [np.roll(labels, 1, 1) for labels in perfect])["mIoU"] < 50


def test_counts_of_a_whole_data_set_lose_nothing_that_shows():
    """Counts are summed in float32, which is exact up to 2^24 only; ADE20K's validation set has 4e8 pixels."""
    from mmseg.evaluation import IoUMetric

    rng, classes, images = np.random.default_rng(0), 20, 2000
    share = rng.dirichlet(np.full(classes, 0.3), images)
    label = (share * 200_000).astype(np.int64)
    predicted = (label * rng.uniform(0.8, 1.2, label.shape)).astype(np.int64)
    intersect = (np.minimum(label, predicted) * rng.uniform(0.5, 1.0, label.shape)).astype(np.int64)
    areas = (intersect, label + predicted - intersect, predicted, label)
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=[str(index) for index in range(classes)])
    results = list(zip(*(torch.from_numpy(area).float() for area in areas), strict=True))
    found = metric.compute_metrics(results)
    exact = 100 * np.mean(areas[0].sum(0) / areas[1].sum(0))
    assert areas[1].sum(0).max() > 2**24
    assert found["mIoU"] == pytest.approx(exact, abs=0.00501)  # no more than its rounding to 0.01 %
