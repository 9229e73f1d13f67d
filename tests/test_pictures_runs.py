"""Pictures of runs: made once, after the last validation, of the very numbers reported, and without a trace in the run.

About 40 s on a free core.
"""

import json
import multiprocessing
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from PIL import Image

from emae_mm.data.demo import make_demo_dataset
from emae_mm.engine import launch, shown, watch
from emae_mm.engine.hooks import pictures
from emae_mm.engine.random_states import get_random_states
from emae_mm.errors import ConfigError
from emae_mm.leaderboard import read_record
from emae_mm.pictures.confusion import class_iou
from emae_mm.registry import HOOKS

VAL = 14
CLASSIFICATION = {"attention", "confusion", "confused_pairs"}
DETECTION = {"attention", "detections", "precision_recall", "class_ap"}
SEGMENTATION = {"attention", "segmentation", "confusion", "confused_pairs", "class_iou"}


@HOOKS.register_module(force=True)
class LookingHook(Hook):
    """Keeps what the pictures are drawn from, the metrics, and the random states before and after each validation."""

    priority = "VERY_LOW"
    seen: dict = {}  # noqa: RUF012  one run at a time

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.seen.setdefault("validations", []).append(dict(metrics))

    def after_test_epoch(self, runner, metrics=None) -> None:
        self.after_val_epoch(runner, metrics)

    def after_train(self, runner) -> None:
        self.seen["weights"] = {name: value.clone() for name, value in runner.model.state_dict().items()}

    def after_run(self, runner) -> None:
        hook = next((hook for hook in runner.hooks if isinstance(hook, pictures.PicturesHook)), None)
        if hook is not None:
            self.seen.update(collected=hook.collector.found, curves=hook.curves)
        self.seen["states"] = get_random_states()


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "demo"
    return make_demo_dataset(root, num_train=20, num_val=VAL, dense_train=10, dense_val=VAL)


def run(name: str, data: Path, work_dir: Path, pretrained: str = "random", **options) -> tuple[dict, dict]:
    """A demonstration config, shortened; returns the metrics and what was seen."""
    torch.set_num_threads(1)
    LookingHook.seen = {}
    options = {"custom_hooks": [dict(type="emae_mm.LookingHook")], "visualizer": None, **options}
    cfg = launch.prepare_config(name, work_dir=work_dir, data_root=data, pretrained=pretrained, cfg_options=options)
    cfg.pop("visualizer")
    metrics = launch.run(cfg, quiet=True)
    return metrics, LookingHook.seen


def files(work_dir: Path) -> set[str]:
    """The pictures there; each is one, and the record names just these."""
    found = {path.stem for path in (work_dir / "pictures").iterdir()}
    assert set(read_record(work_dir / "record.json").pictures) == {f"pictures/{name}.png" for name in found}
    for path in (work_dir / "pictures").iterdir():
        assert np.asarray(Image.open(path).convert("L")).std() > 5, f"{path} is empty"
    return found


def log(work_dir: Path) -> str:
    return "".join(path.read_text() for path in work_dir.glob("*/*.log"))


SHORT_SEG = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 1, "default_hooks.checkpoint.interval": 5}


def segment(demo: Path, work_dir: Path, **options) -> tuple[dict, dict]:
    return run("segmentation/demo/upernet_vit-demo_demo.py", demo / "ade20k", work_dir, **SHORT_SEG, **options)


@pytest.fixture(scope="module")
def segmented(demo, tmp_path_factory) -> tuple[Path, dict, dict]:
    """With pictures collected at every validation, which the hook itself does at the last one only."""
    work_dir = tmp_path_factory.mktemp("segmented") / "work"
    begin = pictures.PicturesHook.before_val_epoch
    pictures.PicturesHook.before_val_epoch = lambda self, runner: self._begin(runner, runner.val_dataloader)
    try:
        metrics, seen = segment(demo, work_dir)
    finally:
        pictures.PicturesHook.before_val_epoch = begin
    return work_dir, metrics, seen


def test_training_is_the_same_with_and_without_pictures(segmented, demo, tmp_path):
    metrics, seen = segment(demo, tmp_path / "work", pictures=None)
    assert not (tmp_path / "work" / "pictures").exists()
    assert read_record(tmp_path / "work" / "record.json").pictures == {}
    assert metrics == segmented[1] and seen["validations"] == segmented[2]["validations"]
    assert len(seen["validations"]) == 2
    assert all(torch.equal(value, segmented[2]["weights"][name]) for name, value in seen["weights"].items())
    assert repr(seen["states"]) == repr(segmented[2]["states"])
    assert "with pictures" not in read_record(tmp_path / "work" / "record.json").protocol


def test_segmentation_pictures_show_the_measured_numbers(segmented):
    work_dir, metrics, seen = segmented
    assert files(work_dir) == SEGMENTATION
    found = seen["collected"]
    # 0.01: mmseg rounds to two decimals
    assert 100 * np.nanmean(class_iou(found.confusion)) == pytest.approx(metrics["mIoU"], abs=0.01)
    assert 100 * np.trace(found.confusion) / found.confusion.sum() == pytest.approx(metrics["aAcc"], abs=0.01)
    assert found.counted == "pixels" and list(found.segmentations) == [0, 4, 9, 13]  # evenly spread, rounded
    assert list(found.attention) == [0, 4, 9, 13]
    image, maps = found.attention[0]
    original = found.segmentations[0].image
    assert maps.heads.shape == (4, 8, 8) and maps.query is None and image.shape == original.shape
    # 1: normalised in float32 and back
    assert np.abs(image.astype(int) - original).max() <= 1
    assert "not drawn" not in log(work_dir)


def test_pictures_are_drawn_once_and_a_failure_costs_one_picture_only(demo, tmp_path, monkeypatch):
    calls, begun = [], []
    monkeypatch.setattr(pictures, "draw_segmentation", lambda *args, **kwargs: calls.append(args))

    def fail(*args, **kwargs):
        assert (tmp_path / "work" / "record.json").is_file(), "the record is there before the pictures"
        raise MemoryError("no memory for this picture")

    monkeypatch.setattr(pictures, "draw_attention", fail)
    begin = pictures.PicturesHook._begin
    monkeypatch.setattr(pictures.PicturesHook, "_begin", lambda *args: begun.append(1) or begin(*args))
    metrics, seen = segment(demo, tmp_path / "work")
    assert len(seen["validations"]) == 2 and len(begun) == len(calls) == 1
    record = read_record(tmp_path / "work" / "record.json")
    assert record.metrics["mIoU"].value == pytest.approx(metrics["mIoU"])
    assert set(record.pictures) == {f"pictures/{name}.png" for name in SEGMENTATION - {"attention"}}
    text = log(tmp_path / "work")
    assert f"{tmp_path / 'work' / 'pictures' / 'attention.png'}: not drawn" in text and "no memory" in text


def test_a_failure_to_collect_loses_no_result(demo, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("cannot look at this")

    monkeypatch.setattr(shown.Collector, "_count", fail)
    metrics, _ = segment(demo, tmp_path / "work", **{"val_dataloader.batch_size": 5})
    assert read_record(tmp_path / "work" / "record.json").metrics["mIoU"].value == pytest.approx(metrics["mIoU"])
    assert log(tmp_path / "work").count("Traceback") == 1, "said once, not for every batch"
    assert not (tmp_path / "work" / "pictures").exists()


def test_detection_pictures_show_the_measured_numbers(demo, tmp_path):
    options = {"train_cfg.max_iters": 1, "train_cfg.val_interval": 1, "pictures": dict(images=2, threshold=0.0)}
    work_dir = tmp_path / "work"
    metrics, seen = run("detection/demo/mask-rcnn_vit-demo_demo.py", demo / "coco", work_dir, **options)
    assert files(work_dir) == DETECTION
    for kind in ("bbox", "segm"):
        half, three_quarters, mean = (curve.mean() for curve in seen["curves"][kind].curves())
        found = [metrics[f"coco/{kind}_{name}"] for name in ("mAP", "mAP_50", "mAP_75")]
        np.testing.assert_allclose([mean, half, three_quarters], found, atol=1e-12)
    annotations = json.loads((demo / "coco/annotations/instances_val2017.json").read_text())
    first, last = (seen["collected"].detections[index] for index in (0, VAL - 1))
    for sample, image in ((first, annotations["images"][0]), (last, annotations["images"][-1])):
        expected = [one for one in annotations["annotations"] if one["image_id"] == image["id"]]
        boxes = np.array([one["bbox"] for one in expected])
        np.testing.assert_allclose(sample.truth.boxes[:, :2], boxes[:, :2])
        np.testing.assert_allclose(sample.truth.boxes[:, 2:], boxes[:, :2] + boxes[:, 2:])
        assert sample.truth.masks.shape == (len(expected), 64, 64) and sample.truth.masks.any(axis=(1, 2)).all()
        assert len(sample.detected.boxes) and (np.diff(sample.detected.scores) <= 0).all()
        assert sample.detected.masks.shape[1:] == sample.image.shape[:2]
    assert seen["collected"].attention[0][1].query == (4, 4)


def test_classification_pictures_show_the_measured_numbers(demo, tmp_path):
    work_dir = tmp_path / "work"
    metrics, seen = run("classification/demo/linear_vit-demo_demo.py", demo / "classification", work_dir,
                        **{"train_cfg.max_epochs": 2, "train_cfg.val_interval": 1, "global_batch_size": 10,
                           "train_dataloader.batch_size": 10})  # fmt: skip
    assert len(seen["validations"]) == 2 and files(work_dir) == CLASSIFICATION
    counts = seen["collected"].confusion
    assert counts.sum() == len(list((demo / "classification/val").rglob("*.jpg")))
    assert 100 * np.trace(counts) / counts.sum() == pytest.approx(metrics["accuracy/top1"], abs=1e-4)  # float32 there
    assert list(seen["collected"].attention[0][1].heads.shape) == [4, 8, 8]


def test_knn_pictures_show_the_measured_numbers(demo, tmp_path):
    work_dir = tmp_path / "work"
    metrics, seen = run("classification/demo/knn_vit-demo_demo.py", demo / "classification", work_dir,
                        **{"test_cfg.k": (5,), "test_cfg.primary_k": 5})  # fmt: skip
    assert files(work_dir) == CLASSIFICATION
    counts = seen["collected"].confusion
    assert 100 * np.trace(counts) / counts.sum() == pytest.approx(metrics["knn/top1"])
    files_of = [len(list(folder.iterdir())) for folder in sorted((demo / "classification/val").iterdir())]
    assert counts.sum(1).tolist() == files_of


def test_pretraining_has_no_such_pictures():
    cfg = launch.prepare_config("pretrain/demo/emae_vit-demo_demo.py")
    watch.watch(cfg)
    assert watch.PICTURES_HOOK not in {hook["type"] for hook in cfg.custom_hooks}


@pytest.mark.parametrize("options", [dict(images=0), dict(threshold=50)])
def test_impossible_values_are_named(options):
    with pytest.raises(ConfigError, match="pictures"):
        pictures.PicturesHook(**options)


class Labelled:
    """Seven images: no multiple of two processes."""

    def __init__(self):
        self.metainfo = dict(classes=("a", "b"))

    def __len__(self) -> int:
        return 7

    def get_data_info(self, index: int) -> dict:
        return dict(img_path=f"{index}.png")


def one_of_two(rank: int, port: str, folder: str) -> None:
    """Counts its share of the images, as a sampler deals them out, and writes the matrix of all."""
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    collector = shown.Collector(Labelled(), 2, 0.5, None)
    for index in [0, 2, 4, 6] if rank == 0 else [1, 3, 5, 0]:  # the last one is a repetition
        sample = {"pred_label": torch.tensor([index % 2]), "gt_label": torch.tensor([0]), "img_path": f"{index}.png"}
        collector.add(dict(inputs=[None]), [_Sample(sample)])
    collector.found.detections[rank] = f"of process {rank}"
    collector.found.gather()
    result = dict(confusion=collector.found.confusion.tolist(), detections=collector.found.detections)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(result))
    dist.destroy_process_group()


class _Sample(SimpleNamespace):
    """What the collector asks of a data sample."""

    def __init__(self, values: dict):
        super().__init__(**values)

    def __contains__(self, name: str) -> bool:
        return name in vars(self)

    def get(self, name: str):
        return vars(self).get(name)


def test_of_several_versions_of_an_image_the_first_is_shown(monkeypatch):
    kept = []
    monkeypatch.setattr(shown.Collector, "_keep", lambda self, index, sample, inputs: kept.append((index, inputs)))
    collector = shown.Collector(Labelled(), 7, 0.5, None)
    samples = [_Sample({"img_path": f"{index}.png"}) for index in range(2)]
    collector.add(dict(inputs=[["a", "b"], ["a mirrored", "b mirrored"]]), samples)
    collector.add(dict(inputs=["c", "d"]), [_Sample({"img_path": f"{index}.png"}) for index in range(2, 4)])
    assert kept == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_two_processes_count_each_image_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    context = multiprocessing.get_context("fork")  # the imports are there already
    processes = [context.Process(target=one_of_two, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=200)
    assert [process.exitcode for process in processes] == [0, 0]
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert both[0] == both[1] == dict(confusion=[[4, 3], [0, 0]], detections={"0": "of process 0", "1": "of process 1"})
