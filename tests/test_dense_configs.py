"""The full-size detection and segmentation configs against the published protocols, written beside as tables."""

import math

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from mmengine.utils import import_modules_from_strings

from emae_mm import registry  # noqa: F401  installs the operators' stand-in before mmdet loads
from emae_mm.paths import find_config

DETECTION = "detection/mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco"
SEGMENTATION = "segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512"


def load(name: str) -> Config:
    return Config.fromfile(find_config(name))


def build_on_meta(config: Config):
    """The model without memory, and its optimiser."""
    import_modules_from_strings(["mmdet.models", "mmseg.models"])
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        model = MODELS.build(config.model)
        wrapper = dict(config.optim_wrapper)
        wrapper["type"] = "OptimWrapper"  # mixed precision needs a GPU, its parameter groups do not
        wrapper.pop("loss_scale", None)
        return model, build_optim_wrapper(model, wrapper).optimizer


def settings_by_name(model, optimiser) -> dict[str, tuple[float, float]]:
    """Every trained parameter's learning rate and weight decay."""
    groups = {id(p): (g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    return {name: groups[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def learning_rates(config: Config, optimiser, steps: list[int]) -> list[float]:
    """The largest learning rate at the given steps of the config's schedule."""
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimiser)) for s in config.param_scheduler]
    found, step = [], 0
    for target in steps:
        while step < target:
            for scheduler in schedulers:
                scheduler.step()
            step += 1
        found.append(max(group["lr"] for group in optimiser.param_groups))
    return found


def transforms(dataloader) -> dict[str, dict]:
    return {t["type"]: t for t in dataloader.dataset.pipeline}


# --- Mask R-CNN ----------------------------------------------------------------------------------------------------

# what MIMDet's benchmarking_mask_rcnn_base_FPN_100ep_LSJ_mae states: parameter -> (learning rate, weight decay)
DETECTION_GROUPS = {
    "backbone.patch_embed.proj.weight": (1.6e-4, 0.2),
    "backbone.pos_embed": (1.6e-4, 0.0),
    "backbone.rel_pos.window.table": (1.6e-4, 0.0),
    "backbone.rel_pos.global.table": (1.6e-4, 0.0),
    "backbone.blocks.0.norm1.weight": (1.6e-4, 0.0),
    "backbone.blocks.0.attn.qkv.weight": (1.6e-4, 0.2),
    "backbone.blocks.11.mlp.fc2.bias": (1.6e-4, 0.2),
    "neck.0.scales.0.1.weight": (1.6e-4, 0.0),
    "neck.1.fpn_convs.0.bn.weight": (1.6e-4, 0.0),
    "neck.1.fpn_convs.0.conv.weight": (1.6e-4, 0.2),
    "rpn_head.rpn_cls.weight": (1.6e-4, 0.2),
    "roi_head.bbox_head.shared_fcs.0.weight": (1.6e-4, 0.2),
    "roi_head.mask_head.conv_logits.weight": (1.6e-4, 0.2),
}


@pytest.fixture(scope="module")
def detection():
    config = load(DETECTION)
    return config, *build_on_meta(config)


def test_detection_optimiser(detection):
    _, model, optimiser = detection
    settings = settings_by_name(model, optimiser)
    assert {name: settings[name] for name in DETECTION_GROUPS} == DETECTION_GROUPS
    assert type(optimiser) is torch.optim.AdamW
    assert optimiser.defaults["betas"] == (0.9, 0.999) and optimiser.defaults["eps"] == 1e-8


def test_detection_model(detection):
    config, model, _ = detection
    backbone = model.backbone
    assert config.model.backbone.drop_path_rate == 0.1
    assert backbone.pos_embed.shape == (1, 1 + 64 * 64, 768) and backbone.pos_embed.requires_grad
    assert [backbone._is_windowed(i) for i in range(12)] == [True, True, False] * 4
    assert backbone.rel_pos["window"].table.shape == (31 * 31, 12)
    assert backbone.rel_pos["global"].table.shape == (127 * 127, 12)
    assert len(model.rpn_head.rpn_conv) == 2
    assert len(model.roi_head.bbox_head.shared_convs) == 4 and len(model.roi_head.bbox_head.shared_fcs) == 1
    assert len(model.roi_head.mask_head.convs) == 4
    for part in (model.neck[1], model.roi_head.bbox_head, model.roi_head.mask_head):
        assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in part.modules())
    assert model.roi_head.bbox_head.num_classes == model.roi_head.mask_head.num_classes == 80
    assert backbone.out_indices == (2, 5, 8, 11)


def test_detection_schedule_and_data(detection):
    config, _, optimiser = detection
    assert config.train_cfg.max_iters == round(100 * 118_000 / 64) == 184_375
    assert config.train_dataloader.batch_size * 8 == 64
    assert list(transforms(config.train_dataloader)) == [
        "emae_mm.LoadImage", "LoadAnnotations", "RandomResize", "RandomCrop", "FilterAnnotations", "Pad", "RandomFlip",
        "PackDetInputs",
    ]  # fmt: skip
    train = transforms(config.train_dataloader)
    assert train["RandomResize"]["scale"] == (1024, 1024) and train["RandomResize"]["ratio_range"] == (0.1, 2.0)
    assert train["RandomCrop"]["crop_size"] == train["Pad"]["size"] == (1024, 1024)
    assert transforms(config.val_dataloader)["Resize"]["scale"] == (1024, 1024)
    assert config.val_evaluator.metric == ["bbox", "segm"]
    assert config.record.task == "coco-maskrcnn-fpn"

    def expected(step):
        warm_up = 0.001 + 0.999 * min(step / 460, 1)  # mmengine reaches the full rate at step end - 1
        return 1.6e-4 * warm_up * 0.5 * (1 + math.cos(math.pi * step / 184_375))

    steps = [0, 230, 460, 1844]
    for ours, step in zip(learning_rates(config, optimiser, steps), steps, strict=True):
        assert ours == pytest.approx(expected(step), rel=1e-6)
    cosine = config.param_scheduler[1]
    assert cosine.end == cosine.T_max == config.train_cfg.max_iters and cosine.eta_min == 0


# --- UperNet -------------------------------------------------------------------------------------------------------

# mmsegmentation's layer decay 0.65 over 14 layers; 1-D parameters do not decay, positions do
SEGMENTATION_GROUPS = {
    "backbone.patch_embed.proj.weight": (1e-4 * 0.65**13, 0.05),
    "backbone.pos_embed": (1e-4 * 0.65**13, 0.05),
    "backbone.cls_token": (1e-4 * 0.65**13, 0.05),
    "backbone.blocks.0.attn.qkv.weight": (1e-4 * 0.65**12, 0.05),
    "backbone.blocks.0.attn.qkv.bias": (1e-4 * 0.65**12, 0.0),
    "backbone.blocks.0.ls1.gamma": (1e-4 * 0.65**12, 0.0),
    "backbone.rel_pos.0.table": (1e-4 * 0.65**12, 0.05),
    "backbone.rel_pos.11.table": (1e-4 * 0.65, 0.05),
    "backbone.blocks.11.norm2.weight": (1e-4 * 0.65, 0.0),
    "neck.scales.0.0.weight": (1e-4, 0.05),
    "decode_head.conv_seg.weight": (1e-4, 0.05),
    "decode_head.conv_seg.bias": (1e-4, 0.0),
    "auxiliary_head.conv_seg.weight": (1e-4, 0.05),
}


@pytest.fixture(scope="module")
def segmentation():
    config = load(SEGMENTATION)
    return config, *build_on_meta(config)


def test_segmentation_optimiser(segmentation):
    _, model, optimiser = segmentation
    settings = settings_by_name(model, optimiser)
    for name, (rate, decay) in SEGMENTATION_GROUPS.items():
        assert settings[name] == (pytest.approx(rate), decay), name
    assert len({round(rate, 15) for rate, _ in settings.values()}) == 14
    assert type(optimiser) is torch.optim.AdamW and optimiser.defaults["betas"] == (0.9, 0.999)


def test_segmentation_model(segmentation):
    config, model, _ = segmentation
    backbone = model.backbone
    assert config.model.backbone.drop_path_rate == 0.1
    assert backbone.out_indices == (3, 5, 7, 11) and backbone.window_size is None
    assert backbone.pos_embed.shape == (1, 1 + 32 * 32, 768) and backbone.pos_embed.requires_grad
    assert [backbone.rel_pos[str(i)].table.shape for i in range(12)] == [(63 * 63 + 3, 12)] * 12
    assert config.model.backbone.init_values == 1.0
    assert (model.decode_head.channels, model.auxiliary_head.channels) == (768, 256)
    assert model.auxiliary_head.loss_decode.loss_weight == 0.4 and model.auxiliary_head.in_index == 2
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == 150
    assert config.model.test_cfg == dict(mode="slide", crop_size=(512, 512), stride=(341, 341))


def test_segmentation_schedule_and_data(segmentation):
    config, _, optimiser = segmentation
    assert config.train_cfg.max_iters == 160_000 and config.train_dataloader.batch_size * 8 == 16
    train = transforms(config.train_dataloader)
    assert train["RandomResize"]["scale"] == (2048, 512) and train["RandomResize"]["ratio_range"] == (0.5, 2.0)
    assert train["RandomCrop"] == dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75)
    assert list(train)[-3:] == ["RandomFlip", "PhotoMetricDistortion", "PackSegInputs"]
    assert config.record.task == "ade20k-upernet"

    warm_up = [1e-4 * (1e-6 + (1 - 1e-6) * step / 1499) for step in (0, 750)]
    poly = [1e-4 * (1 - (step - 1500) / (160_000 - 1500)) for step in (1500, 4000)]
    found = learning_rates(config, optimiser, [0, 750, 1500, 4000])
    # mmengine's linear decay divides by the steps left less one: 1/158500 apart at most
    assert found == pytest.approx(warm_up + poly, rel=2e-5)


@pytest.mark.parametrize("name", [DETECTION, SEGMENTATION])
def test_configs_follow_the_contract(name):
    config = load(name)
    assert config.pretrained == config.model.backbone.pretrained == ""
    assert set(config.record) == {"task", "protocol", "data", "metric"}
    assert "emae_mm.registry" in config.custom_imports.imports
    for loader in (config.train_dataloader, config.val_dataloader):
        assert loader.dataset.type in ("emae_mm.CocoFormatDataset", "emae_mm.ADE20KFormatDataset")
        folders = [*loader.dataset.data_prefix.values(), loader.dataset.get("ann_file", "")]
        assert not any(folder.startswith(("/", loader.dataset.data_root)) for folder in folders)
