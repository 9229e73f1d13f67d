"""What can be wrong with a transfer's data, checkpoint and options: one clear error before anything is trained."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emae_mm.checkpoints import export_encoder
from emae_mm.data.checks.command import check_command
from emae_mm.engine import launch
from emae_mm.errors import CheckpointError, ConfigError, DataError, UserError
from emae_mm.models import ViTEncoder

LINEAR = "classification/demo/linear_vit-demo_demo"
KNN = "classification/demo/knn_vit-demo_demo"
DETECTION = "detection/demo/mask-rcnn_vit-demo_demo"
SEGMENTATION = "segmentation/demo/upernet_vit-demo_demo"
ARCH = dict(embed_dim=8, depth=1, num_heads=1)
UNWEIGHTED = {f"model.{head}.loss_decode.class_weight": None for head in ("decode_head", "auxiliary_head")}
OPTIONS = {
    LINEAR: {
        "model.backbone.arch": ARCH,
        "model.neck.input_features": 8,
        "model.head.in_channels": 8,
        "global_batch_size": 2,
        "train_dataloader.batch_size": 2,
    },
    KNN: {"model.backbone.arch": ARCH, "test_cfg.k": [1], "test_cfg.primary_k": 1},
    DETECTION: {},
    SEGMENTATION: UNWEIGHTED,
}
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]
SAMPLED = 64  # label maps that are looked at before a run


@pytest.fixture(autouse=True)
def _no_environment_report(monkeypatch):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # a second a run for a log nobody reads here


@pytest.fixture
def work(tmp_path) -> Path:
    return tmp_path / "work"


def save_picture(path: Path, height: int = 40, width: int = 40, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)).save(path)


def image_folder(root: Path, classes: str = "ab") -> Path:
    for split in ("train", "val"):
        for name in classes:
            for index in range(2):
                save_picture(root / split / name / f"{index}.jpg", seed=index)
    return root


@pytest.fixture
def folder(tmp_path) -> Path:
    return image_folder(tmp_path / "imagenet")


@pytest.fixture
def coco(tmp_path) -> Path:
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        save_picture(root / split / "cups.jpg")
        box = dict(id=31, image_id=9, category_id=1, bbox=[2, 2, 10, 10], area=100, segmentation=SQUARE, iscrowd=0)
        content = dict(
            images=[dict(id=9, file_name="cups.jpg", width=40, height=40)],
            annotations=[box, dict(box, id=32)],
            categories=[dict(id=1, name="cup")],
        )
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def ade20k(tmp_path) -> Path:
    return segments(tmp_path / "ade20k", images=1)


def segments(root: Path, images: int) -> Path:
    for split in ("training", "validation"):
        for index in range(images):
            save_picture(root / f"images/{split}/{index:03d}.jpg", 16, 16)
            save_labels(root / f"annotations/{split}/{index:03d}.png", [[0, 1], [2, 255]])
    (root / "classes.json").write_text(json.dumps(dict(classes=["sky", "tree"])))
    return root


def save_labels(path: Path, values: list[list[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(np.array(values, np.uint8), np.ones((8, 8), np.uint8))).save(path)


def edit(root: Path, split: str, **changes) -> Path:
    """Change the second annotation of a split; None removes a key."""
    path = root / f"annotations/instances_{split}2017.json"
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content["annotations"][1].pop(key) if value is None else content["annotations"][1].update({key: value})
    path.write_text(json.dumps(content))
    return path


def prepare(config: str, work: Path, root: Path | None = None, options: dict | None = None, **extra):
    options = OPTIONS[config] | {"visualizer.vis_backends": []} | (options or {})
    extra = {"pretrained": "random"} | extra
    return launch.prepare_config(config, work_dir=work, data_root=root, cfg_options=options, **extra)


def refused(cfg, kind: type[UserError], match: str, call=launch.run, untouched: bool = True) -> UserError:
    """Run what must be refused: nothing trained, no result, and (``untouched``) not even the work directory made."""
    steps = []
    with pytest.raises(kind, match=match) as caught:
        call(cfg, progress=lambda *step, **what: steps.append(step), quiet=True)
    assert caught.value.fix and not steps
    work = Path(cfg.work_dir)
    if untouched:
        assert not work.exists()
    left = [
        path for path in work.rglob("*") if path.is_file() and path.suffix not in (".log", ".json", ".jsonl", ".py")
    ]
    assert not left and not (work / "record.json").exists()
    return caught.value


# --- classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "key", "value", "count"),
    [
        (LINEAR, "model.head.num_classes", 1000, 2),
        (DETECTION, "model.roi_head.mask_head.num_classes", 80, 1),
        (SEGMENTATION, "model.decode_head", dict(num_classes=150), 2),
    ],
)
def test_a_chosen_number_of_classes_that_is_not_the_datas(folder, coco, ade20k, work, config, key, value, count):
    root = {LINEAR: folder, DETECTION: coco, SEGMENTATION: ade20k}[config]
    named = key if isinstance(value, int) else f"{key}.num_classes"
    number = value if isinstance(value, int) else value["num_classes"]
    error = refused(prepare(config, work, root, {key: value}), ConfigError, f"{named}={number}, but the data in ")
    assert str(root) in error.problem and f"have {count} classes" in error.problem and "--data-root" in error.fix


def test_the_number_of_classes_follows_the_data(folder, work):
    """A config's own number, without anybody's choice, is only what its usual data have."""
    steps = []
    cfg = prepare(LINEAR, work, image_folder(folder.parent / "three", "abc"), {"train_cfg.max_epochs": 11})
    launch.run(cfg, progress=lambda *step, **what: steps.append(step), quiet=True)
    weights = torch.load(work / "epoch_11.pth", weights_only=True)["state_dict"]
    assert steps and weights["head.fc.weight"].shape == (3, 8)
    # the same data again under a number chosen in words, which is right
    chosen = prepare(LINEAR, work.parent / "b", folder.parent / "three", {"model.head.num_classes": 3})
    assert chosen.chosen_classes == {"model.head.num_classes": 3}

    # a classifier for three classes tested on data with two
    cfg = prepare(LINEAR, work.parent / "c", folder, load_from=str(work / "epoch_11.pth"), pretrained=None)
    message = r"epoch_11\.pth was trained for another number of classes: head\.fc\.weight has 3 rows, not 2"
    error = refused(cfg, CheckpointError, message, launch.test, untouched=False)
    assert "data it was trained on" in error.fix
    resumed = prepare(LINEAR, work.parent / "d", folder, resume=str(work / "epoch_11.pth"), pretrained=None)
    refused(resumed, CheckpointError, message, untouched=False)


@pytest.mark.parametrize(
    ("config", "classes", "message"),
    [
        (LINEAR, ["a", "b", "c"], "train has 2 classes, but 3 classes are named in metainfo"),
        (DETECTION, ["cup", "saucer"], r"has no category \['saucer'\]|no categories of .*saucer"),
        (SEGMENTATION, ["sky"], r"values \[2\] are no class"),
    ],
)
def test_named_classes_that_are_not_the_datas(folder, coco, ade20k, work, config, classes, message):
    root = {LINEAR: folder, DETECTION: coco, SEGMENTATION: ade20k}[config]
    options = {f"{split}_dataloader.dataset.metainfo": dict(classes=classes) for split in ("train", "val", "test")}
    error = refused(prepare(config, work, root, options), DataError, message)
    assert str(root) in error.problem


def test_class_weights_for_another_number_of_classes(ade20k, work):
    """The demonstration weighs its five classes; torch would only fail in the first step."""
    message = r"model\.decode_head\.loss_decode\.class_weight has 5 weights, but the data in .*ade20k have 2 classes"
    cfg = prepare(SEGMENTATION, work, ade20k, {next(iter(UNWEIGHTED)): [0.2, 1, 1, 1, 1]})
    assert "--cfg-options" in refused(cfg, ConfigError, message).fix


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "annotations without a 'segmentation'"),
        ([], "annotations without a 'segmentation'"),
        ([[]], "a polygon of 0 numbers"),
        ([[2, 2, 12, 12]], "a polygon of 4 numbers"),
        (dict(size=[40, 40], counts=[10, 20]), "its 'counts' make 30 pixels, the image has 1600"),
        (dict(size=[40, 40], counts="?not run lengths?"), "its 'counts' cannot be read"),
        (dict(size=[20, 40], counts=[800]), r"its \[height, width\] is \[20, 40\], the image's \[40, 40\]"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_that_training_or_evaluation_could_not_use(coco, work, capsys, split, mask, message):
    path = edit(coco, split, segmentation=mask)
    error = refused(prepare(DETECTION, work, coco), DataError, message)
    assert str(path) in error.problem and "annotation 32 of image 9 (cups.jpg)" in error.problem
    assert not check_command(str(coco), "coco", sample=None, workers=1, report_file=None)
    told = capsys.readouterr().out
    assert "annotation 32 of image 9 (cups.jpg)" in told and str(path) in told and "1 fault in" in told


def test_data_without_any_mask(coco, work, capsys):
    """They serve detectors without a mask head, so the command only says so; Mask R-CNN is refused."""
    for split in ("train", "val"):
        path = coco / f"annotations/instances_{split}2017.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation.pop("segmentation")
        path.write_text(json.dumps(content))
    assert check_command(str(coco), "coco", sample=None, workers=1, report_file=None)
    assert "no annotation has a mask" in capsys.readouterr().out
    error = refused(prepare(DETECTION, work, coco), DataError, r"without a 'segmentation'.*\(2 in all\)")
    assert "mask head" in error.fix


# --- label maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["training", "validation"])
def test_label_values_that_are_no_class(ade20k, work, capsys, split):
    path = ade20k / f"annotations/{split}/000.png"
    save_labels(path, [[0, 1], [9, 3]])
    error = refused(prepare(SEGMENTATION, work, ade20k), DataError, rf"{path}: values \[3, 9\] are no class")
    assert "0 (unlabelled), 1..2 (the classes) or 255 (ignored)" in error.fix
    assert not check_command(str(ade20k), "ade20k", sample=None, workers=1, report_file=None)
    assert f"{path}: values [3, 9] are no class" in capsys.readouterr().out


def test_a_label_map_beyond_the_sample_is_found_by_the_command_and_stops_the_training(tmp_path, work, capsys):
    root = segments(tmp_path / "many", images=SAMPLED + 2)
    from emae_mm.data.checks import Inspection
    from emae_mm.data.files import list_images

    names = list_images(root / "images/training")
    name = next(name for name in names if name not in Inspection(sample=SAMPLED, seed=0).draw(names))
    path = root / f"annotations/training/{Path(name).stem}.png"
    save_labels(path, [[0, 1], [2, 3]])
    assert not check_command(str(root), "ade20k", sample=None, workers=2, report_file=None)
    assert f"{path}: values [3] are no class" in capsys.readouterr().out
    with pytest.raises(DataError, match=rf"{path} has values that are no class: \[3\]"):
        launch.run(prepare(SEGMENTATION, work, root), quiet=True)


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [LINEAR, DETECTION, SEGMENTATION])
def test_a_checkpoint_of_another_patch_size(folder, coco, ade20k, work, tmp_path, config):
    root = {LINEAR: folder, DETECTION: coco, SEGMENTATION: ade20k}[config]
    cfg = prepare(config, work, root)
    arch = dict(cfg.model.backbone.arch)
    assert cfg.model.backbone.patch_size == 8
    export_encoder(ViTEncoder(arch=arch, img_size=64, patch_size=16), tmp_path / "patch16.pth", {})
    cfg = prepare(config, work, root, pretrained=str(tmp_path / "patch16.pth"))
    error = refused(cfg, CheckpointError, "patch", untouched=False)
    assert "patch16.pth" in error.problem and "16" in error.problem


# --- precision -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim_wrapper.type": "AmpOptimWrapper"}, "AmpOptimWrapper.* does not run on a CPU"),
        ({"optim_wrapper.type": "mmengine.optim.AmpOptimWrapper"}, "AmpOptimWrapper.* does not run on a CPU"),
        (
            {"optim_wrapper.type": "emae_mm.AutocastOptimWrapper", "optim_wrapper.dtype": "float16"},
            r"optim_wrapper\.dtype='float16' is not one of",
        ),
        ({"optim_wrapper.dtype": "float16"}, r"optim_wrapper\.dtype='float16' is no option of OptimWrapper"),
        ({"optim_wrapper.loss_scale": "dynamic"}, r"optim_wrapper\.loss_scale='dynamic' is no option of OptimWrapper"),
        ({"fp16": dict(loss_scale=512.0)}, "'fp16' is read by nothing"),
    ],
)
def test_precisions_that_a_cpu_does_not_have(folder, work, options, message):
    assert "amp" in refused(prepare(LINEAR, work, folder, options), ConfigError, message).fix.lower()


def test_amp_beside_another_choice_of_precision(folder, work):
    for key, value in [("optim_wrapper.dtype", "float16"), ("optim_wrapper.type", "AmpOptimWrapper")]:
        with pytest.raises(ConfigError, match=rf"--amp and {key} both choose the precision"):
            prepare(LINEAR, work, folder, {key: value}, amp=True)
    with pytest.raises(ConfigError, match="--amp is given, but this config trains nothing"):
        prepare(KNN, work, folder, amp=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_amp_replaces_float16_of_a_published_config(work):
    """The published recipes have a loss scaler; on a CPU --amp computes in bfloat16, which needs none."""
    from emae_mm.engine.precision import check_precision

    config = "detection/vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco"
    with pytest.raises(ConfigError, match="does not run on a CPU"):
        check_precision(launch.prepare_config(config, work_dir=work))
    cfg = launch.prepare_config(config, work_dir=work, amp=True)
    check_precision(cfg)
    assert cfg.optim_wrapper.type == "emae_mm.AutocastOptimWrapper" and "loss_scale" not in cfg.optim_wrapper


# --- batches and neighbours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [LINEAR, DETECTION, SEGMENTATION])
def test_a_batch_that_does_not_divide_among_processes(folder, coco, ade20k, work, monkeypatch, config):
    root = {LINEAR: folder, DETECTION: coco, SEGMENTATION: ade20k}[config]
    monkeypatch.setenv("WORLD_SIZE", "3")
    cfg = prepare(config, work, root, {"global_batch_size": 64}, launcher="pytorch")
    error = refused(cfg, ConfigError, "global_batch_size=64 does not divide among 3 processes")
    assert "multiple of 3" in error.fix
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = {"global_batch_size": 10, "train_dataloader.batch_size": 2}  # larger shares are accumulated
    cfg = prepare(config, work, root, options, launcher="pytorch")
    refused(cfg, ConfigError, r"has 5 images a step, which is no multiple of train_dataloader\.batch_size=2")


@pytest.mark.parametrize("k", [[1, 5], [0, 1]])
def test_neighbours_that_the_bank_does_not_have(folder, work, k):
    cfg = prepare(KNN, work, folder, {"test_cfg.k": k})
    error = refused(
        cfg, ConfigError, rf"test_cfg\.k=\({k[0]}, {k[1]}\) does not fit a bank of 4 images", untouched=False
    )
    assert "1 to 4" in error.fix


# --- another task's data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (SEGMENTATION, "coco", r"is laid out as COCO \(annotations/instances_.*reads ADE20K's layout"),
        (LINEAR, "coco", "is laid out as COCO .* reads ImageNet's layout"),
        (DETECTION, "ade20k", "is laid out as ADE20K .* reads COCO's layout"),
        (KNN, "ade20k", "is laid out as ADE20K .* reads ImageNet's layout"),
        (DETECTION, "imagenet", "is laid out as ImageNet .* reads COCO's layout"),
        (SEGMENTATION, "imagenet", "is laid out as ImageNet .* reads ADE20K's layout"),
    ],
)
def test_the_data_of_another_task(folder, coco, ade20k, work, config, given, message):
    root = dict(coco=coco, ade20k=ade20k, imagenet=folder)[given]
    error = refused(prepare(config, work, root), DataError, message)
    assert str(root) in error.problem and "--data-root" in error.fix


@pytest.mark.parametrize("config", [LINEAR, DETECTION, SEGMENTATION])
def test_the_folder_above_the_data(folder, coco, ade20k, work, tmp_path, config):
    own = {LINEAR: folder, DETECTION: coco, SEGMENTATION: ade20k}[config]
    error = refused(
        prepare(config, work, tmp_path), DataError, rf"{tmp_path} does not hold .* but {own.name}/ in it does"
    )
    assert error.fix == f"give {own}"
