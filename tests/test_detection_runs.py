"""The small detection configs, launched on the embedded data: they train, evaluate and leave a record."""

import math

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings

from emae_mm.data.demo import make_demo_dataset
from emae_mm.engine import launch
from emae_mm.leaderboard import read_record
from emae_mm.leaderboard.records import RECORD_NAME

STEPS = 3
CONFIGS = {
    "demo/vitdet_mask-rcnn_vit-demo_demo": "demo-vitdet",
    "demo/vitdet_cascade-mask-rcnn_vit-demo_demo": "demo-vitdet-cascade",
    "tiny/vitdet_mask-rcnn_vit-tiny64_coco": "tiny-vitdet-lsj160",
    "tiny/vitdet_cascade-mask-rcnn_vit-tiny64_coco": "tiny-vitdet-cascade-lsj160",
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("detection") / "data"
    return make_demo_dataset(root, num_train=10, num_val=10, dense_train=10, dense_val=10) / "coco"


@pytest.fixture(autouse=True)
def _plain_config_files(monkeypatch):
    """Configs are printed unformatted: mmengine formats each six times a run, which takes longer than these runs."""
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **kwargs: (text, True))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_small_detector_trains_and_evaluates(name, scenes, tmp_path, monkeypatch):
    options = {"train_cfg.max_iters": STEPS, "train_cfg.val_interval": STEPS, "global_batch_size": 4}
    cfg = launch.prepare_config(
        f"detection/{name}", data_root=scenes, pretrained="random", work_dir=tmp_path, cfg_options=options
    )
    runners, before, build_runner = [], {}, launch._build_runner

    def watched(*args):
        runner = build_runner(*args)
        before.update((key, value.detach().clone()) for key, value in runner.model.named_parameters())
        runners.append(runner)
        return runner

    monkeypatch.setattr(launch, "_build_runner", watched)
    losses = []
    metrics = launch.run(cfg, lambda step, total, loss=None, what="step": losses.append(loss), quiet=True)

    assert runners[0].iter == STEPS
    trained = [value for value in losses if value is not None]
    assert trained and all(math.isfinite(value) for value in trained)
    parameters = dict(runners[0].model.named_parameters())
    assert [key for key, value in before.items() if parameters[key].equal(value)] == [], "nothing was learned there"
    # after three steps nothing is found, which is a number, too
    assert 0 <= metrics["coco/bbox_mAP"] <= 1 and 0 <= metrics["coco/segm_mAP"] <= 1
    record = read_record(tmp_path / RECORD_NAME)
    assert record.protocol.startswith(CONFIGS[name]) and {"box_AP", "mask_AP"} <= set(record.metrics)


FULL = [
    "mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco",
    "vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco",
]


@pytest.mark.parametrize("name", FULL)
def test_the_full_size_pipelines_give_squares_with_zeros_beside_the_image(name, scenes):
    cfg = launch.prepare_config(f"detection/{name}", data_root=scenes, pretrained="random")
    import_modules_from_strings(["mmdet.models", "mmdet.datasets"])
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        train, test = (DATASETS.build(loader.dataset) for loader in (cfg.train_dataloader, cfg.test_dataloader))
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
    train, test = ([data[index] for index in range(len(data))] for data in (train, test))
    sizes = [sample["data_samples"].img_shape for sample in train]
    assert max(max(size) for size in sizes) == 1024
    if name.startswith("vitdet"):  # some scenes were made smaller
        assert min(min(size) for size in sizes) < 512
    else:  # padded before the flip, with the mean colour: the rows and columns of zeros are part of the image
        assert set(sizes) == {(1024, 1024)}
    for samples in (train, test):
        batch = dict(
            inputs=[sample["inputs"] for sample in samples], data_samples=[sample["data_samples"] for sample in samples]
        )
        batch = preprocessor(batch, training=samples is train)
        assert batch["inputs"].shape == (len(samples), 3, 1024, 1024)
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            height, width = sample.img_shape
            assert not image[:, height:].any() and not image[:, :, width:].any()
            assert image[:, :height, :width].std() > 0.1
            if samples is train:
                objects = sample.gt_instances
                assert objects.masks.masks.shape == (len(objects), 1024, 1024)
                # boxes are drawn around what is left of the masks
                for box, mask in zip(objects.bboxes, objects.masks.masks, strict=True):
                    rows, columns = np.nonzero(mask)
                    around = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                    torch.testing.assert_close(box, around.float())
