"""Small variants of fine-tuning and of UperNet in CAE's settings, and a multi-scale test, on the embedded data."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmseg.models import SegTTAModel

from emae_mm.data.demo import make_demo_dataset
from emae_mm.engine import launch
from emae_mm.engine.multi_scale_loop import mean_of_versions
from emae_mm.errors import ConfigError
from emae_mm.paths import find_config

TRAIN, TEST = "segmentation/demo/upernet_vit-demo_demo", "segmentation/demo/upernet_vit-demo_demo_ms"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_dataset(
        tmp_path_factory.mktemp("transfer") / "data", num_train=64, num_val=20, dense_train=10, dense_val=10
    )


def run(name, data, work_dir, **options):
    """A run on the embedded data from random weights; its record and its last weights."""
    cfg = launch.prepare_config(name, work_dir=work_dir, data_root=data, pretrained="random", cfg_options=options)
    launch.run(cfg, quiet=True)
    checkpoints = sorted(work_dir.glob("*_[0-9]*.pth"))
    state = torch.load(checkpoints[-1], weights_only=False)["state_dict"] if checkpoints else None
    return json.loads((work_dir / "record.json").read_text()), state, checkpoints[-1]


@pytest.mark.parametrize("name", ["demo/finetune_vit-demo_demo", "tiny/finetune_vit-tiny64_folder"])
def test_fine_tuning_runs_and_trains_every_parameter(name, data, tmp_path):
    options = {"train_cfg.max_epochs": 2, "train_cfg.val_interval": 2}
    record, state, _ = run(f"classification/{name}", data / "classification", tmp_path, **options)
    assert record["task"] == "imagenet-finetune" and "finetune" in record["protocol"]
    assert 0 <= record["metrics"]["top1"]["value"] <= 100
    torch.manual_seed(0)
    untrained = MODELS.build(Config.fromfile(find_config(f"classification/{name}")).model)
    constant = {key for key, value in untrained.named_parameters() if value.unique().numel() == 1}
    still = [key for key in constant if state[key].unique().numel() == 1]
    assert still == [], "biases and norms start as constants, and two epochs change them"
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())


@pytest.mark.parametrize("name", ["demo/upernet-cae_vit-demo_demo", "tiny/upernet-cae_vit-tiny64_ade20k"])
def test_upernet_in_caes_settings_keeps_its_positions(name, data, tmp_path):
    options = {"train_cfg.max_iters": 3, "train_cfg.val_interval": 3, "default_hooks.checkpoint.interval": 3}
    options |= {"param_scheduler": [dict(type="LinearLR", start_factor=0.5, by_epoch=False, end=3)]}
    record, state, _ = run(f"segmentation/{name}", data / "ade20k", tmp_path, **options)
    assert record["task"] == "ade20k-upernet-cae" and "upernet-cae" in record["protocol"]
    with DefaultScope.overwrite_default_scope("mmseg"):
        untrained = MODELS.build(Config.fromfile(find_config(f"segmentation/{name}")).model)
    torch.testing.assert_close(state["backbone.pos_embed"], untrained.backbone.pos_embed.data, atol=0, rtol=0)
    assert state["backbone.rel_pos.0.table"].any(), "relative positions start at zero and are learned"


def test_a_multi_scale_test_has_its_own_protocol(data, tmp_path):
    options = {"train_cfg.max_iters": 3, "train_cfg.val_interval": 3, "default_hooks.checkpoint.interval": 3}
    options |= {"param_scheduler": [dict(type="LinearLR", start_factor=0.5, by_epoch=False, end=3)]}
    single, _, checkpoint = run(TRAIN, data / "ade20k", tmp_path / "train", **options)
    cfg = launch.prepare_config(TEST, work_dir=tmp_path / "test", data_root=data / "ade20k", load_from=str(checkpoint))
    metrics = launch.test(cfg, quiet=True)
    assert 0 <= metrics["mIoU"] <= 100
    record = json.loads((tmp_path / "test/record.json").read_text())
    assert record["task"] == single["task"] == "ade20k-upernet"
    assert record["protocol"] == "demo-upernet-ms" != single["protocol"]


def test_a_multi_scale_test_without_a_trained_model_is_an_error(data, tmp_path):
    cfg = launch.prepare_config(TEST, work_dir=tmp_path, data_root=data / "ade20k", pretrained="random")
    with pytest.raises(ConfigError, match="no checkpoint"):
        launch.run(cfg, quiet=True)


def test_mean_of_versions_is_mmsegmentations(data):
    """Against SegTTAModel, which keeps the predictions of all versions; with a plain mean of two images beside."""
    config = Config.fromfile(find_config(TEST))
    dataset_cfg = config.test_dataloader.dataset
    dataset_cfg.data_root = str(data / "ade20k")
    with DefaultScope.overwrite_default_scope("mmseg"):
        torch.manual_seed(0)
        model = MODELS.build(config.model).eval()
        dataset = DATASETS.build(dataset_cfg)
        torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=1.0)  # predictions of more than one class

        def batch():
            return pseudo_collate([dataset[0], dataset[1]])

        assert len(batch()["inputs"]) == 6, "three scales, each mirrored"
        with torch.no_grad():
            ours, theirs = mean_of_versions(model, batch()), SegTTAModel(model).test_step(batch())
    for sample, wanted in zip(ours, theirs, strict=True):
        prediction = sample.pred_sem_seg.data.squeeze(0)
        assert prediction.shape == sample.gt_sem_seg.data.squeeze(0).shape == (64, 64)
        assert prediction.unique().numel() > 1
        # the sums differ in their rounding alone, which decides between equal classes nowhere here
        assert torch.equal(prediction, wanted.pred_sem_seg.data.squeeze())
        assert "seg_logits" not in sample
    flipped = [sample.metainfo.get("flip") for sample in ours]
    assert not any(flipped), "what is handed on is the image as it is"
