"""The small detection and segmentation configs train and evaluate for a few steps on data made here."""

import json

import cv2
import numpy as np
import pytest
from mmengine import Config
from mmengine.runner import Runner

from emae_mm.paths import find_config

SIDE = 96


def write_scenes(root, count=8):
    """Bright squares (class 1) and discs (class 2) on noise, in COCO's and in ADE20K's layout."""
    rng = np.random.default_rng(0)
    for split, ade_split in [("train", "training"), ("val", "validation")]:
        folders = [root / f"{split}2017", root / "images" / ade_split, root / "annotations" / ade_split]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in range(count):
            image = rng.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
            labels = np.ones((SIDE, SIDE), np.uint8)
            x, y, side, kind = int(rng.integers(0, 50)), int(rng.integers(0, 50)), 36, number % 2
            corners = np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])
            outline = corners if kind == 0 else cv2.ellipse2Poly((x + 18, y + 18), (18, 18), 0, 0, 360, 20)
            cv2.fillPoly(image, [outline], (200, 220, 240))
            cv2.fillPoly(labels, [outline], kind + 2)
            cv2.imwrite(str(folders[0] / f"{number}.png"), image)
            cv2.imwrite(str(folders[1] / f"{number}.png"), image)
            cv2.imwrite(str(folders[2] / f"{number}.png"), labels)
            images.append(dict(id=number, file_name=f"{number}.png", width=SIDE, height=SIDE))
            annotations.append(
                dict(
                    id=number + 1,
                    image_id=number,
                    category_id=kind + 1,
                    bbox=[x, y, side, side],
                    area=side * side,
                    iscrowd=0,
                    segmentation=[outline.astype(float).flatten().tolist()],
                )
            )
        categories = [dict(id=1, name="square"), dict(id=2, name="disc")]
        (root / "annotations" / f"instances_{split}2017.json").write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=categories))
        )
    (root / "classes.json").write_text(json.dumps({"classes": ["ground", "square", "disc"]}))
    return root


def short_run(name, root, work_dir) -> tuple[Runner, dict]:
    """Two steps and an evaluation of a small config."""
    config = Config.fromfile(find_config(name))
    config.work_dir = str(work_dir)
    config.launcher = "none"
    config.model.backbone.pretrained = "random"
    config.train_cfg.update(max_iters=2, val_interval=2)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.batch_size = 2
        loader.dataset.data_root = str(root)
    for evaluator in (config.val_evaluator, config.test_evaluator):
        if "ann_file" in evaluator:
            evaluator.ann_file = str(root / config.val_dataloader.dataset.ann_file)
    if "roi_head" in config.model:
        config.model.roi_head.bbox_head.num_classes = config.model.roi_head.mask_head.num_classes = 2
    else:
        for head in (config.model.decode_head, config.model.auxiliary_head):
            head.num_classes = 3
            head.loss_decode.pop("class_weight", None)
    # records and checkpoints are the launcher's and have their own tests
    config.default_hooks = {k: v for k, v in config.default_hooks.items() if k not in ("checkpoint", "record")}
    config.visualizer = None
    config.custom_hooks = []
    runner = Runner.from_cfg(config)
    before = {n: p.detach().clone() for n, p in runner.model.named_parameters()}
    runner.train()
    changed = {n: not p.equal(before[n]) for n, p in runner.model.named_parameters() if p.requires_grad}
    return runner, changed


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("detection/demo/mask-rcnn_vit-demo_demo", {"coco/bbox_mAP", "coco/segm_mAP"}),
        ("segmentation/demo/upernet_vit-demo_demo", {"mIoU"}),
        ("detection/tiny/mask-rcnn_vit-tiny64_coco", {"coco/bbox_mAP", "coco/segm_mAP"}),
        ("segmentation/tiny/upernet_vit-tiny64_ade20k", {"mIoU"}),
    ],
)
def test_small_config_trains_and_evaluates(name, metrics, scenes, tmp_path):
    runner, changed = short_run(name, scenes, tmp_path)
    assert runner.iter == 2
    logged = set(runner.message_hub.log_scalars)
    assert {f"val/{metric}" for metric in metrics} <= logged
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == 2 and np.isfinite(losses).all()
    still = [name for name, moved in changed.items() if not moved]
    assert not still, f"parameters that two steps left as they were: {still}"
