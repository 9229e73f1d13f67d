"""COCO's numbers from our data set, pipeline and evaluator, against pycocotools on the same boxes and masks."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.structures import InstanceData
from PIL import Image, ImageDraw
from pycocotools import mask as rle_tools
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from emae_mm.engine.record_hook import METRICS as METRICS_OF_RECORDS
from emae_mm.errors import ConfigError
from emae_mm.registry import DATASETS, METRICS

CATEGORIES = [dict(id=7, name="cup"), dict(id=3, name="cat"), dict(id=90, name="tree"), dict(id=21, name="car")]
SIZES = [(320, 240), (200, 300), (257, 131), (96, 180), (300, 300), (140, 90), (251, 252), (64, 210)]  # width, height
STATS = (
    "mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l", "AR@1", "AR@10", "AR@100", "AR_s@100", "AR_m@100", "AR_l@100",
)  # fmt: skip
DETECTION = "configs/detection/mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py"


def polygon(rng, width, height, radius) -> list[float]:
    """A lopsided polygon around a random centre, within the image."""
    centre = rng.uniform([radius * 0.4, radius * 0.4], [width - radius * 0.4, height - radius * 0.4])
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = centre + radius * rng.uniform(0.5, 1.0, (9, 1)) * np.stack([np.cos(angles), np.sin(angles) * 0.6], 1)
    return np.clip(points, 0, [width - 1, height - 1]).round(2).ravel().tolist()


def raster(points: list[float], width: int, height: int) -> np.ndarray:
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon(points, fill=1)
    return np.array(canvas, dtype=np.uint8)


def encode(mask: np.ndarray) -> dict:
    rle = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=rle["size"], counts=rle["counts"].decode())


def counts_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, column by column, the first of zeros: COCO's form of crowds."""
    runs, value = [0], 0
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def annotation(mask: np.ndarray, number: int, image: int, category: int, form, crowd: bool = False) -> dict:
    rle = encode(mask)
    box, area = rle_tools.toBbox(rle).tolist(), float(rle_tools.area(rle))
    return dict(
        id=number, image_id=image, category_id=category, bbox=box, area=area, iscrowd=int(crowd), segmentation=form
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images with objects of all sizes as polygons, run lengths in both forms, and crowds; one without any object."""
    root, rng = tmp_path_factory.mktemp("coco"), np.random.default_rng(0)
    images, annotations = [], []
    (root / "val2017").mkdir()
    (root / "annotations").mkdir()
    for index, (width, height) in enumerate(SIZES):
        number = 1000 - 7 * index  # ids neither contiguous nor ascending
        images.append(dict(id=number, file_name=f"{index}.png", width=width, height=height))
        Image.fromarray(rng.integers(256, size=(height, width, 3), dtype=np.uint8)).save(root / f"val2017/{index}.png")
        for place in range(0 if index == 5 else 7):
            radius = float(rng.choice([12, 40, 110]))  # areas around 200, 2000 and 15 000: small, medium and large
            points = polygon(rng, width, height, min(radius, 0.45 * min(width, height)))
            mask, crowd = raster(points, width, height), place == 6
            form = [points] if place % 3 == 0 and not crowd else encode(mask)
            if crowd:
                form = dict(size=[height, width], counts=counts_of(mask))
            elif place % 3 == 0:
                mask = rle_tools.decode(rle_tools.merge(rle_tools.frPyObjects([points], height, width)))
            if not mask.sum():
                continue
            category = CATEGORIES[int(rng.integers(3))]["id"]  # no "car" anywhere: its numbers are -1 and not averaged
            annotations.append(annotation(mask, len(annotations) + 1, number, category, form, crowd))
    content = dict(images=images, annotations=annotations, categories=CATEGORIES)
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return root


def dataset_and_evaluator(repo, root, metainfo=None, **changes):
    """Of the full-size config, on the given folder; ``changes`` to the data set."""
    cfg = Config.fromfile(repo / DETECTION)
    as_stored = [step for step in cfg.val_dataloader.dataset.pipeline if step["type"] != "Resize"]
    options = {**cfg.val_dataloader.dataset, "data_root": str(root), "pipeline": as_stored, **changes}
    if metainfo:
        options["metainfo"] = metainfo
    with DefaultScope.overwrite_default_scope("mmdet"):
        dataset = DATASETS.build(options)
        ann_file = str(root / "annotations/instances_val2017.json")
        evaluator = Evaluator([{**cfg.val_evaluator, "type": "emae_mm.CocoMetric", "ann_file": ann_file}])
    evaluator.dataset_meta = dataset.metainfo
    return dataset, evaluator


def predictions_for(content: dict, names: list[str], rng) -> dict[int, dict]:
    """Per image boxes (float32), masks, scores and labels: shifted objects, doubles, wrong classes, false alarms."""
    labels = {entry["id"]: names.index(entry["name"]) for entry in content["categories"] if entry["name"] in names}
    found = {}
    for image in content["images"]:
        width, height, masks, classes = image["width"], image["height"], [], []
        own = [a for a in content["annotations"] if a["image_id"] == image["id"] and a["category_id"] in labels]
        for truth in own:
            form = truth["segmentation"]
            if isinstance(form, list) or isinstance(form["counts"], list):
                form = rle_tools.frPyObjects(form, height, width)
            mask = rle_tools.decode(rle_tools.merge(form) if isinstance(form, list) else form)
            for _ in range(int(rng.integers(0, 3))):
                shift = rng.integers(-4, 5, 2)
                masks.append(np.roll(mask, shift, (0, 1)))
                wrong = rng.random() < 0.15
                classes.append(int(rng.integers(len(names))) if wrong else labels[truth["category_id"]])
        for _ in range(int(rng.integers(0, 4))):
            masks.append(raster(polygon(rng, width, height, 20.0), width, height))
            classes.append(int(rng.integers(len(names))))
        boxes = [rle_tools.toBbox(encode(mask)) + rng.normal(0, 1, 4) for mask in masks]
        boxes = np.array([[x, y, x + abs(w), y + abs(h)] for x, y, w, h in boxes], np.float32).reshape(-1, 4)
        scores = rng.choice(np.linspace(0.05, 1, 30), len(masks)).astype(np.float32)  # ties do occur
        masks = np.array(masks, bool).reshape(-1, height, width)
        found[image["id"]] = dict(boxes=boxes, masks=masks, scores=scores, labels=np.array(classes, np.int64))
    return found


def as_output(data: dict, prediction: dict) -> dict:
    """A model's output for one sample of the data set."""
    sample = data["data_samples"]
    sample.pred_instances = InstanceData(
        bboxes=torch.from_numpy(prediction["boxes"]),
        masks=torch.from_numpy(prediction["masks"]),
        scores=torch.from_numpy(prediction["scores"]),
        labels=torch.from_numpy(prediction["labels"]),
    )
    return sample


def evaluate(dataset, evaluator, predictions: dict[int, dict]) -> dict[str, float]:
    for index in range(len(dataset)):
        data = dataset[index]
        evaluator.process([as_output(data, predictions[data["data_samples"].img_id])], None)
    return evaluator.evaluate(len(dataset))


def pycocotools_stats(root, predictions: dict[int, dict], names: list[str], kind: str) -> np.ndarray:
    """The twelve numbers from pycocotools, its defaults, in plain steps."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations/instances_val2017.json"))
        ids = {name: entry["id"] for entry in CATEGORIES for name in [entry["name"]]}
        entries = []
        for image, found in predictions.items():
            for box, mask, score, label in zip(*found.values(), strict=True):
                x, y, right, bottom = (float(value) for value in box)
                place = dict(bbox=[x, y, right - x, bottom - y]) if kind == "bbox" else dict(segmentation=encode(mask))
                entries.append(dict(image_id=image, category_id=ids[names[label]], score=float(score), **place))
        evaluation = COCOeval(truth, truth.loadRes(entries), kind)
        evaluation.params.catIds = [ids[name] for name in names]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("names", [["cup", "cat", "tree", "car"], ["cat", "car"]], ids=["all classes", "two of them"])
def test_all_twelve_numbers_are_those_of_pycocotools(repo, root, names):
    content = json.loads((root / "annotations/instances_val2017.json").read_text())
    predictions = predictions_for(content, names, np.random.default_rng(3))
    metainfo = dict(classes=tuple(names)) if len(names) < 4 else None
    ours = evaluate(*dataset_and_evaluator(repo, root, metainfo), predictions)
    for kind in ("bbox", "segm"):
        expected = pycocotools_stats(root, predictions, names, kind)
        found = np.array([ours[f"coco/{kind}_{name}"] for name in STATS])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        assert 0.1 < expected[0] < 0.9 and len(set(expected.round(6))) > 6, "the case distinguishes the numbers"
        recorded = {name: factor * ours[key] for key, (name, factor) in METRICS_OF_RECORDS.items() if kind in key}
        short = dict(bbox="box", segm="mask")[kind]
        assert recorded == {
            f"{short}_{name}": pytest.approx(100 * expected[place], abs=1e-10)
            for place, name in enumerate(("AP", "AP50", "AP75"))
        }
        assert abs(expected[0] * 1000 - round(expected[0] * 1000)) > 1e-3, "it would differ when rounded"


def perfect(dataset, score=1.0) -> dict[int, dict]:
    """What the data set itself gives as truth (boxes, masks, labels), as predictions."""
    found = {}
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        truth = sample.gt_instances
        found[sample.img_id] = dict(
            boxes=truth.bboxes.numpy(),
            masks=truth.masks.to_ndarray().astype(bool),
            scores=np.full(len(truth), score, np.float32),
            labels=truth.labels.numpy(),
        )
    return found


def training_steps(repo) -> list[dict]:
    """Loading and packing of the training pipeline, without the augmentations."""
    steps = Config.fromfile(repo / DETECTION).train_dataloader.dataset.pipeline
    loading = [dict(steps[0]), dict(steps[1], with_bbox=True, with_mask=True, box_type="hbox")]
    keys = ("img_id", "img_path", "ori_shape", "img_shape")
    return [*loading, dict(steps[-1], meta_keys=keys)]


def test_perfect_predictions_have_full_marks(repo, root):
    """Boxes and masks that the data set gives for training: a flipped axis, an offset or a swapped label would show."""
    reading, _ = dataset_and_evaluator(repo, root, pipeline=training_steps(repo))
    dataset, evaluator = dataset_and_evaluator(repo, root)
    predictions = perfect(reading)
    found = evaluate(dataset, evaluator, predictions)
    for kind in ("bbox", "segm"):
        for name in STATS:
            if not name.startswith("AR@1") or name == "AR@100":  # AR@1: several objects of a class in an image
                assert found[f"coco/{kind}_{name}"] == pytest.approx(1.0, abs=1e-12), (kind, name)
    flipped = {
        image: {**entry, "masks": np.ascontiguousarray(entry["masks"][:, :, ::-1])}
        for image, entry in predictions.items()
    }
    dataset, evaluator = dataset_and_evaluator(repo, root)
    assert evaluate(dataset, evaluator, flipped)["coco/segm_mAP"] < 0.5, "the test does see a flipped axis"


def test_mask_head_pastes_what_its_targets_were(repo, root):
    """Training targets (28 x 28 in the resized image) turned into logits and pasted into the original image."""
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead
    from mmdet.structures.mask import mask_target

    steps = training_steps(repo)
    steps.insert(2, dict(type="Resize", scale=(512, 512), keep_ratio=True))
    steps[-1] = dict(steps[-1], meta_keys=(*steps[-1]["meta_keys"], "scale_factor"))
    reading, _ = dataset_and_evaluator(repo, root, pipeline=steps)
    init_default_scope("mmdet")  # other libraries have a loss of the same name
    head = FCNMaskHead(num_classes=4)
    options = Config(dict(mask_thr_binary=0.5, mask_size=28))
    predictions = {}
    for index in range(len(reading)):
        sample = reading[index]["data_samples"]
        truth = sample.gt_instances
        results = InstanceData(bboxes=truth.bboxes.tensor if hasattr(truth.bboxes, "tensor") else truth.bboxes)
        results.labels, results.scores = truth.labels, torch.ones(len(truth))
        targets = mask_target([results.bboxes], [torch.arange(len(truth))], [truth.masks], options)
        logits = torch.zeros(len(truth), 4, 28, 28)
        logits[torch.arange(len(truth)), truth.labels] = 20 * targets.reshape(-1, 28, 28) - 10
        pasted = head.predict_by_feat([logits], [results], [sample.metainfo], options, rescale=True)[0]
        predictions[sample.img_id] = dict(
            boxes=results.bboxes.numpy(),  # the head has scaled them back in place
            masks=pasted.masks.numpy(),
            scores=results.scores.numpy(),
            labels=results.labels.numpy(),
        )
    found = evaluate(*dataset_and_evaluator(repo, root), predictions)
    assert found["coco/bbox_mAP"] == pytest.approx(1, abs=1e-12)  # scaled up and down: IoU 1 but for rounding
    # 28 x 28 cells keep a shape to a fraction of a cell at its border: IoU above 0.9, not 1
    assert found["coco/segm_mAP_75"] == pytest.approx(1, abs=1e-12) and found["coco/segm_mAP"] > 0.9, found


def test_nothing_detected_is_zero_not_missing(repo, root):
    dataset, evaluator = dataset_and_evaluator(repo, root)
    nothing = {
        dataset[index]["data_samples"].img_id: dict(
            boxes=np.zeros((0, 4), np.float32),
            masks=np.zeros((0, *dataset[index]["data_samples"].ori_shape), bool),
            scores=np.zeros(0, np.float32),
            labels=np.zeros(0, np.int64),
        )
        for index in range(len(dataset))
    }
    found = evaluate(dataset, evaluator, nothing)
    assert found["coco/bbox_mAP"] == found["coco/segm_mAP"] == 0.0


def test_other_numbers_are_refused(root):
    path = str(root / "annotations/instances_val2017.json")
    for options, named in [(dict(metric="proposal"), "proposal"), (dict(proposal_nums=(1, 2, 3)), "proposal_nums")]:
        with pytest.raises(ConfigError, match=named):
            METRICS.build(dict(type="emae_mm.CocoMetric", ann_file=path, **options))
