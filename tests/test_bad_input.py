"""What a user can give that is wrong: one clear error before anything is computed, and no finished work lost."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from emae_mm import fileio
from emae_mm.checkpoints import export_encoder
from emae_mm.data.checks import Inspection
from emae_mm.data.files import list_images
from emae_mm.engine import launch, work_dir
from emae_mm.errors import CheckpointError, ConfigError, DataError, UserError
from emae_mm.models import ViTEncoder
from emae_mm.registry import DATASETS

PRETRAIN = "pretrain/demo/emae_vit-demo_demo"
LINEAR = "classification/demo/linear_vit-demo_demo"
KNN = "classification/demo/knn_vit-demo_demo"
DETECTION = "detection/demo/mask-rcnn_vit-demo_demo"
SEGMENTATION = "segmentation/demo/upernet_vit-demo_demo"
TINY = dict(embed_dim=8, depth=1, num_heads=1)
SAMPLED = 64  # images that the checks decode
OPTIONS = {
    PRETRAIN: {
        "model.backbone.arch": TINY,
        "model.decoder": dict(decoder_dim=8, depth=1, num_heads=1),
        "train_cfg.max_epochs": 2,
        "global_batch_size": 4,
        "train_dataloader.batch_size": 4,
    },
    LINEAR: {
        "model.backbone.arch": TINY,
        "model.neck.input_features": 8,
        "model.head.in_channels": 8,
        "global_batch_size": 2,
        "train_dataloader.batch_size": 2,
    },
    KNN: {"model.backbone.arch": TINY, "test_cfg.k": [1], "test_cfg.primary_k": 1},
    DETECTION: {},
    # the demonstration weighs its own five classes
    SEGMENTATION: {f"model.{head}.loss_decode.class_weight": None for head in ("decode_head", "auxiliary_head")},
}


@pytest.fixture(autouse=True)
def _no_environment_report(monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # a second a run for a log nobody reads here


@pytest.fixture
def work(tmp_path) -> Path:
    return tmp_path / "work"


def picture(size: int = 20, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=(size, size, 3), dtype=np.uint8))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def image_folder(root: Path, images: int = 8) -> Path:
    for split in ("train", "val"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for index in range(images // 2):
                picture(seed=index).save(root / split / name / f"{index}.jpg")
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    return image_folder(tmp_path / "images")


@pytest.fixture
def coco(tmp_path) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        picture(40).save(root / split / "1.jpg")
        square = [[2, 2, 12, 2, 12, 12, 2, 12]]
        box = dict(id=1, image_id=1, category_id=1, bbox=[2, 2, 10, 10], area=100, segmentation=square, iscrowd=0)
        content = dict(
            images=[dict(id=1, file_name="1.jpg", width=40, height=40)],
            annotations=[box],
            categories=[dict(id=1, name="cup")],
        )
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def ade20k(tmp_path) -> Path:
    root = tmp_path / "ade20k"
    for split in ("training", "validation"):
        (root / "images" / split).mkdir(parents=True)
        (root / "annotations" / split).mkdir(parents=True)
        picture().save(root / "images" / split / "1.jpg")
        Image.fromarray(np.full((20, 20), 2, np.uint8)).save(root / "annotations" / split / "1.png")
    (root / "classes.json").write_text(json.dumps(dict(classes=["sky", "tree"])))
    return root


def prepare(config: str, work: Path, root: Path | None = None, options: dict | None = None, **extra):
    base = dict(OPTIONS[config]) | {"visualizer.vis_backends": [], "custom_imports.allow_failed_imports": False}
    return launch.prepare_config(config, work_dir=work, data_root=root, cfg_options=base | (options or {}), **extra)


def finish(cfg) -> list[tuple]:
    """Run; what was reported of each step."""
    steps = []
    launch.run(cfg, progress=lambda *step, **what: steps.append(step), quiet=True)
    return steps


def refused(cfg, kind: type[UserError], match: str) -> UserError:
    """Run what must be refused: no step may have been computed and no result written."""
    steps = []
    with pytest.raises(kind, match=match) as caught:
        launch.run(cfg, progress=lambda *step, **what: steps.append(step), quiet=True)
    assert caught.value.fix and not steps
    assert not [*Path(cfg.work_dir).glob("*.pth"), *Path(cfg.work_dir).glob("record.json")]
    return caught.value


def test_missing_data_root(tmp_path, work):
    for config in OPTIONS:
        with pytest.raises(ConfigError, match="nowhere is not a folder"):
            prepare(config, work, tmp_path / "nowhere")
    configured = prepare(PRETRAIN, work, options={"train_dataloader.dataset.data_root": str(tmp_path / "nowhere")})
    assert "--data-root" in refused(configured, DataError, "data root .*nowhere does not exist").fix


@pytest.mark.parametrize("config", list(OPTIONS))
def test_empty_data_root(tmp_path, work, config):
    (tmp_path / "empty").mkdir()
    pretrained = {} if config == PRETRAIN else dict(pretrained="random")
    refused(prepare(config, work, tmp_path / "empty", **pretrained), DataError, f"{tmp_path / 'empty'}.*")
    assert not work.exists()


def test_folder_without_images(tmp_path, work):
    (tmp_path / "empty/train/a").mkdir(parents=True)
    (tmp_path / "empty/train/a/notes.txt").write_text("no image")
    refused(prepare(PRETRAIN, work, tmp_path / "empty"), DataError, "train holds no image")


def test_pretraining_counts_broken_images_and_goes_on(folder, work):
    truncate(folder / "train/a/0.jpg")
    (folder / "train/b/1.jpg").write_text("no image")
    assert len(finish(prepare(PRETRAIN, work, folder))) == 4
    log = "".join(path.read_text() for path in work.rglob("*.log"))
    assert "will be skipped" in log and "(2 in all)" in log
    for count, (name, reason) in enumerate([("a/0.jpg", "truncated"), ("b/1.jpg", "no image")]):
        lines = [line for line in log.splitlines() if "skipped the image" in line and name in line]
        assert len(lines) == 1 and reason in lines[0] and "WARNING" in lines[0], count
    assert "broken file 2 of at most 100" in log


def test_more_broken_images_than_allowed(folder, work):
    truncate(folder / "train/a/0.jpg")
    truncate(folder / "train/b/0.jpg")
    options = {"train_dataloader.dataset.pipeline.0.max_broken": 1}
    refused(prepare(PRETRAIN, work, folder, options), DataError, r"more than max_broken=1.*a/0\.jpg.*\(2 in all\)")


def break_unsampled(root: Path) -> str:
    """Truncate one image that the checks do not sample; its name."""
    names = list_images(root / "train")
    name = next(name for name in names if name not in Inspection(sample=SAMPLED, seed=0).draw(names))
    truncate(root / "train" / name)
    return name


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_that_only_training_finds(tmp_path, work, workers):
    folder = image_folder(tmp_path / "images", SAMPLED + 4)
    name = break_unsampled(folder)
    options = {"train_dataloader.dataset.pipeline.0.max_broken": 0, "train_dataloader.num_workers": workers}
    with pytest.raises(DataError, match="1 images cannot be used, more than max_broken=0") as caught:
        finish(prepare(PRETRAIN, work, folder, options))
    assert name in caught.value.problem and "Traceback" not in str(caught.value)
    assert "raise max_broken" in caught.value.fix


def test_evaluation_refuses_broken_images(folder, work):
    truncate(folder / "val/a/0.jpg")
    refused(prepare(LINEAR, work, folder, pretrained="random"), DataError, r"val/a/0\.jpg: the JPEG is truncated")
    (folder / "val/a/0.jpg").write_text("no image")
    refused(prepare(KNN, work, folder, pretrained="random"), DataError, r"val/a/0\.jpg: it is no image")
    picture().save(folder / "val/a/0.jpg")
    truncate(folder / "train/b/1.jpg")
    refused(prepare(KNN, work, folder, pretrained="random"), DataError, r"train/b/1\.jpg: the JPEG is truncated")


@pytest.mark.parametrize(("config", "image"), [(DETECTION, "train2017/1.jpg"), (SEGMENTATION, "images/training/1.jpg")])
def test_transfer_refuses_broken_images(coco, ade20k, work, config, image):
    root = coco if config == DETECTION else ade20k
    truncate(root / image)
    refused(prepare(config, work, root, pretrained="random"), DataError, f"{root / image}: the JPEG is truncated")


def test_grey_palette_and_other_images_simply_work(folder, work, tmp_path):
    for split in ("train", "val"):
        for mode in ("L", "P", "RGBA", "1", "CMYK"):
            name = f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
            picture().convert(mode).save(folder / split / "b" / name)
    assert len(finish(prepare(PRETRAIN, work, folder))) == 6
    finish(prepare(KNN, tmp_path / "knn", folder, pretrained=str(work / "encoder.pth")))
    record = json.loads((tmp_path / "knn/record.json").read_text())
    assert record["num_samples"] == 13
    log = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert "skipped" not in log


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<html>", "is not JSON"),
        ("[1, 2]", "is not a COCO file: it holds a list"),
        ('{"shapes": []}', "is not a COCO file: 'categories' is missing"),
        ('{"categories": [{"id": 1, "name": "cup"}]}', "the key 'images' is missing"),
        ('{"images": [1], "annotations": [], "categories": [{"id": 1, "name": "cup"}]}', "that are no objects"),
    ],
)
def test_annotation_file_that_is_not_coco(coco, work, content, message):
    path = coco / "annotations/instances_train2017.json"
    path.write_text(content)
    error = refused(prepare(DETECTION, work, coco, pretrained="random"), DataError, message)
    assert str(path) in error.problem and not work.exists()


@pytest.mark.parametrize(
    ("box", "message"), [([35, 2, 10, 10], "outside their image"), ([1, 2, "3", 4], r"not \[x, y, width, height\]")]
)
def test_boxes_that_cannot_be(coco, work, box, message):
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = box
    path.write_text(json.dumps(content))
    error = refused(prepare(DETECTION, work, coco, pretrained="random"), DataError, message)
    assert str(path) in error.problem


def test_label_outside_the_classes(ade20k, work):
    path = ade20k / "annotations/validation/1.png"
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(path)
    refused(prepare(SEGMENTATION, work, ade20k, pretrained="random"), DataError, rf"{path}: values \[7\] are no class")


@pytest.mark.parametrize("content", ["value", "truncated"])
def test_label_map_that_only_reading_finds(ade20k, work, content):
    """The checks see a sample; mmseg would leave such pixels out of the scores without a word."""
    path = ade20k / "annotations/validation/1.png"
    if content == "value":
        Image.fromarray(np.array([[0, 1, 2, 255, 7]] * 20, np.uint8).repeat(4, 1)).save(path)
    else:
        truncate(path)
    cfg = prepare(SEGMENTATION, work, ade20k, pretrained="random")
    with DefaultScope.overwrite_default_scope("mmseg"):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        dataset.full_init()
    expected = rf"{path} has values that are no class: \[7\]" if content == "value" else f"{path} cannot be used"
    with pytest.raises(DataError, match=expected):
        dataset[0]
    Image.fromarray(np.array([[0, 1, 2, 255]] * 20, np.uint8).repeat(5, 1)).save(path)
    labels = dataset[0]["data_samples"].gt_sem_seg.data
    assert labels.unique().tolist() == [0, 1, 255]


def test_list_with_labels_outside_the_classes(folder, work):
    (folder / "list.txt").write_text("a/0.jpg 0\nb/0.jpg 2\n")
    options = {"val_dataloader.dataset.ann_file": "list.txt"}
    cfg = prepare(LINEAR, work, folder, options, pretrained="random")
    refused(cfg, DataError, r"list\.txt are outside 0\.\.1: 'b/0\.jpg 2'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model.masking": dict(type="Spiral")}, "unknown mask strategy 'Spiral'"),
        ({"model.masking": dict(type="RandomMasking", ratio=0.5)}, "mask strategy RandomMasking.*ratio"),
        ({"model.num_parts": 5}, "5.*64"),
        ({"model.sc_norm": "all"}, "sc_norm='all' is unknown"),
    ],
)
def test_masking_that_cannot_be(folder, work, options, message):
    error = refused(prepare(PRETRAIN, work, folder, options), ConfigError, message)
    if "Spiral" in message:
        assert "ParallelMasking" in error.fix and "RandomMasking" in error.fix


@pytest.mark.parametrize("config", [LINEAR, KNN, DETECTION, SEGMENTATION])
def test_pretrained_not_chosen(work, config):
    refused(prepare(config, work), ConfigError, "'pretrained' is not set")
    assert not work.exists()


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (TINY | dict(embed_dim=16), r"cls_token: checkpoint \(1, 1, 16\), model \(1, 1, 8\)"),
        (TINY | dict(depth=2), r"blocks\.1"),
        (None, "does not exist"),
    ],
)
def test_checkpoint_of_another_architecture(folder, work, tmp_path, arch, message):
    path = tmp_path / "other.pth"
    if arch:
        export_encoder(ViTEncoder(arch=arch, img_size=64, patch_size=8), path, {})
    error = refused(prepare(LINEAR, work, folder, pretrained=str(path)), CheckpointError, message)
    assert str(path) in error.problem


def test_training_no_longer_than_its_warm_up(work):
    cfg = prepare(PRETRAIN, work, options={"train_cfg.max_epochs": 1})
    error = refused(cfg, ConfigError, r"train_cfg\.max_epochs=1 is not larger than the 1 epochs of warm-up")
    assert "param_scheduler" in error.fix
    cfg = prepare(SEGMENTATION, work, options={"train_cfg.max_iters": 5}, pretrained="random")
    cfg.param_scheduler[1].pop("end")
    refused(cfg, ConfigError, r"train_cfg\.max_iters=5 is not larger than the 10 iters of warm-up")


def test_work_directory_of_another_config(folder, work):
    finish(prepare(PRETRAIN, work, folder))
    before = {path: path.read_bytes() for path in work.rglob("*") if path.is_file()}
    cfg = prepare(PRETRAIN, work, folder, {"model.num_parts": 8}, resume="auto")
    with pytest.raises(ConfigError, match=r"belongs to another configuration.*model\.num_parts \(4 there, 8 here\)"):
        launch.run(cfg, quiet=True)
    assert {path: path.read_bytes() for path in work.rglob("*") if path.is_file()} == before
    assert launch.is_finished(prepare(PRETRAIN, work, folder))


def test_work_directory_of_a_refused_run_is_free(folder, work):
    refused(prepare(PRETRAIN, work, folder, {"model.num_parts": 5}), ConfigError, "5")
    finish(prepare(PRETRAIN, work, folder))
    assert launch.is_finished(prepare(PRETRAIN, work, folder))


def test_work_directory_that_cannot_be_written(folder, work, monkeypatch):
    work.write_text("a file")
    with pytest.raises(UserError, match=f"work directory {work} cannot be made") as caught:
        launch.run(prepare(PRETRAIN, work, folder), quiet=True)
    assert "--work-dir" in caught.value.fix
    work.unlink()
    monkeypatch.setattr(work_dir.os, "access", lambda path, mode: False)  # the superuser may write everywhere
    refused(prepare(PRETRAIN, work, folder), UserError, f"work directory {work} cannot be written to")


def test_full_disk_before_the_run(folder, work, monkeypatch):
    usage = work_dir.shutil.disk_usage(folder)._replace(free=1 << 20)
    monkeypatch.setattr(work_dir.shutil, "disk_usage", lambda path: usage)
    refused(prepare(PRETRAIN, work, folder), UserError, "only 1 MiB are free")


def test_full_disk_during_the_run_keeps_what_was_finished(folder, work, monkeypatch):
    def full(descriptor: int) -> None:
        if (work / "epoch_1.pth").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(fileio.os, "fsync", full)
        with pytest.raises(UserError, match=r"no space left to write .*work") as caught:
            finish(prepare(PRETRAIN, work, folder))
    assert "--resume" in caught.value.fix
    assert torch.load(work / "epoch_1.pth", weights_only=True)["meta"]["epoch"] == 1
    assert not list(work.glob(".*.tmp"))
    assert [step for step, *_ in finish(prepare(PRETRAIN, work, folder, resume="auto"))] == [3, 4]
    assert (work / "encoder.pth").is_file()


def command(repo: Path, tool: str, *arguments: str | Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, repo / "tools" / tool, *arguments]
    return subprocess.run(line, capture_output=True, text=True, env=environment, cwd=repo, check=False)


def errors_in(done: subprocess.CompletedProcess) -> list[str]:
    """The command failed as it should: status 2, no traceback; its error messages."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error:")]


def test_command_shows_one_message(repo, coco, work):
    (coco / "annotations/instances_train2017.json").write_text("[]")
    config = repo / f"configs/{DETECTION}.py"
    done = command(repo, "train.py", config, "--work-dir", work, "--data-root", coco, "--pretrained", "random")
    assert errors_in(done) == [done.stderr.splitlines()[0]]
    assert "instances_train2017.json is not a COCO file" in done.stderr
    assert done.stderr.splitlines()[1].startswith("  fix: ") and len(done.stderr.splitlines()) == 2


def test_command_shows_the_message_of_a_worker(repo, tmp_path, work):
    folder = image_folder(tmp_path / "images", SAMPLED + 4)
    name = break_unsampled(folder)
    options = ["global_batch_size=4", "train_dataloader.batch_size=4", "train_dataloader.num_workers=1"]
    options += ["train_dataloader.dataset.pipeline.0.max_broken=0", "model.backbone.arch.depth=1"]
    config = repo / f"configs/{PRETRAIN}.py"
    done = command(repo, "train.py", config, "--work-dir", work, "--data-root", folder, "--cfg-options", *options)
    (message,) = errors_in(done)
    assert "more than max_broken=0" in message and name in message


def test_error_of_any_process_is_shown():
    """A broken file may be read by any process; the others do not know of it."""
    code = (
        "from emae_mm.engine import command\n"
        "from emae_mm.errors import DataError\n"
        "def work(): raise DataError('the image a.jpg cannot be used', 'replace it')\n"
        "command.OTHERS_WAIT_S = 0.1\n"
        "command.guarded(work)\n"
    )
    environment = os.environ | {"RANK": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (2, "error: the image a.jpg cannot be used\n  fix: replace it\n")


def test_testing_a_pretraining_config_is_refused(work):
    with pytest.raises(ConfigError, match=r"has no test data"):
        launch.test(prepare(PRETRAIN, work))
