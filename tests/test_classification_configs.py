"""The full-size classification configs hold the published hyper-parameters, and their variants inherit from them."""

import math

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope

import emae_mm.registry  # noqa: F401
from emae_mm.registry import MODELS, TRANSFORMS

STEPS_PER_EPOCH = 10  # ImageNet's 78 at batch 16384 would only take longer

# From the MAE release (main_linprobe.py, main_finetune.py and FINETUNE.md).
LINEAR = "classification/linear_vit-base-p16_8xb2048-90e_in1k.py"
FINETUNE = "classification/finetune_vit-base-p16_8xb128-100e_in1k.py"
KNN = "classification/knn_vit-base-p16_in1k.py"
SCHEDULES = {
    LINEAR: dict(batch=16384, gpus=8, lr=6.4, min_lr=0.0, warmup=10, epochs=90, weight_decay=0.0),
    FINETUNE: dict(batch=1024, gpus=8, lr=2e-3, min_lr=1e-6, warmup=5, epochs=100, weight_decay=0.05),
}


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


@pytest.fixture
def load(repo):
    def read(name):
        return Config.fromfile(repo / "configs" / name)

    return read


def small(config):
    """The config's model at another width and depth: nothing else changes."""
    arch = dict(embed_dim=16, depth=12, num_heads=2)
    config = config.copy()
    config.model.backbone.arch = arch
    config.model.head.in_channels = 16
    if config.model.get("neck"):
        config.model.neck.input_features = 16
    return MODELS.build(config.model)


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_learning_rate_follows_the_release(load, name):
    config, expected = load(name), SCHEDULES[name]
    assert config.train_dataloader.batch_size * expected["gpus"] == expected["batch"] == config.global_batch_size
    assert config.train_cfg.max_epochs == expected["epochs"]
    assert config.auto_scale_lr.base_batch_size == expected["batch"]
    model = small(config)
    model.init_weights()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert {group["weight_decay"] for group in wrapper.optimizer.param_groups} <= {0.0, expected["weight_decay"]}
    schedulers = [
        # the Runner fills in the same end
        PARAM_SCHEDULERS.build(
            dict(end=expected["epochs"], epoch_length=STEPS_PER_EPOCH) | dict(spec),
            default_args=dict(optimizer=wrapper),
        )
        for spec in config.param_scheduler
    ]
    head = next(g for g in wrapper.optimizer.param_groups if "head.fc.weight" in g["param_names"])
    total, warm = expected["epochs"] * STEPS_PER_EPOCH, expected["warmup"] * STEPS_PER_EPOCH
    for step in range(total):
        wanted = (
            expected["lr"] * step / warm
            if step < warm
            else expected["min_lr"]
            + (expected["lr"] - expected["min_lr"]) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        )
        # mmengine's warm-up ends one step earlier, and starts at a millionth: at most a step's worth of the rate
        assert head["lr"] == pytest.approx(wanted, abs=expected["lr"] / warm), step
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()


def test_linear_probe_is_the_releases(load):
    config = load(LINEAR)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.fc.weight", "head.fc.bias"}
    assert not any(module.training for module in model.backbone.modules())
    norm = model.neck.bn
    assert (norm.affine, norm.eps, norm.num_features) == (False, 1e-6, 768)  # protocol test 8
    assert model.head.fc.weight.shape == (1000, 768)
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not model.head.fc.bias.any()
    images = torch.randn(2, 3, 224, 224)
    feature = model.extract_feat(images, stage="backbone")[-1]
    torch.testing.assert_close(feature, model.backbone.encode(model.backbone.embed(images))[:, 0])
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    found = {
        name: (group["lr"], group["momentum"], group["weight_decay"], group["trust_coeff"], group["always_adapt"])
        for group in wrapper.optimizer.param_groups
        for name in group["param_names"]
    }
    assert found == {
        "head.fc.weight": (6.4, 0.9, 0.0, 0.001, True),
        "head.fc.bias": (6.4, 0.9, 0.0, 0.001, False),
    }


def test_fine_tuning_is_the_releases(load):
    config = load(FINETUNE)
    model = small(config)
    model.init_weights()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    groups = {name: group for group in wrapper.optimizer.param_groups for name in group["param_names"]}
    assert set(groups) == {name for name, _ in model.named_parameters()}, "everything is trained"
    assert groups["backbone.pos_embed"]["lr"] == pytest.approx(2e-3 * 0.65**13)
    assert groups["backbone.pos_embed"]["weight_decay"] == groups["backbone.cls_token"]["weight_decay"] == 0.0
    assert groups["backbone.blocks.3.attn.qkv.weight"]["lr"] == pytest.approx(2e-3 * 0.65**9)
    assert groups["head.fc.weight"]["betas"] == (0.9, 0.999)
    assert model.head.fc.weight.std().item() == pytest.approx(2e-5, rel=0.2)  # 16000 draws
    assert (model.backbone.pool, config.model.backbone.drop_path_rate) == ("avg", 0.1)
    assert config.model.head.loss.label_smooth_val == 0.1
    assert {augment.type: augment.alpha for augment in config.model.train_cfg.augments} == {
        "mmpretrain.Mixup": 0.8,
        "mmpretrain.CutMix": 1.0,
    }


def test_transforms(load):
    def of(name):
        return {step["type"].split(".")[1]: step for step in load(name).train_dataloader.dataset.pipeline}

    linear, finetune = of(LINEAR), of(FINETUNE)
    assert list(linear) == ["LoadImage", "RandomResizedCropOnce", "RandomFlip", "PackInputs"]
    crop = linear["RandomResizedCropOnce"]
    assert (crop.scale, tuple(crop.crop_ratio_range), crop.interpolation, crop.backend) == (
        224, (0.08, 1.0), "bicubic", "pillow",
    )  # fmt: skip
    augment, erase = finetune["RandAugment"], finetune["RandomErasing"]
    assert (augment.magnitude_level, augment.magnitude_std, augment.num_policies, augment.policies) == (
        9, 0.5, 2, "timm_increasing",
    )  # fmt: skip
    assert (erase.erase_prob, erase.mode) == (0.25, "rand")
    for name in (LINEAR, FINETUNE, KNN):
        test = {step["type"].split(".")[1]: step for step in load(name).test_dataloader.dataset.pipeline}
        assert (test["ResizeEdge"].scale, test["ResizeEdge"].interpolation) == (256, "bicubic")
        assert test["CenterCrop"].crop_size == 224


@pytest.mark.parametrize("name", [LINEAR, FINETUNE, KNN])
def test_every_transform_builds(load, name):
    config = load(name)
    for loader in (config.get("train_dataloader"), config.test_dataloader):
        for step in loader.dataset.pipeline if loader else ():
            TRANSFORMS.build(step)


@pytest.mark.parametrize(
    ("variant", "full"),
    [
        ("demo/linear_vit-demo_demo.py", LINEAR),
        ("tiny/linear_vit-tiny64_folder.py", LINEAR),
        ("demo/knn_vit-demo_demo.py", KNN),
        ("tiny/knn_vit-tiny64_folder.py", KNN),
    ],
)
def test_variants_change_sizes_only(load, variant, full):
    small_config, full_config = load(f"classification/{variant}"), load(full)
    assert small_config.record.task == full_config.record.task
    assert small_config.record.protocol != full_config.record.protocol
    assert small_config.pretrained == full_config.pretrained == ""
    sizes = {"arch", "img_size", "patch_size", "input_features", "in_channels"}

    def rest(config):
        return {
            part: {key: value for key, value in (config.model.get(part) or {}).items() if key not in sizes}
            for part in ("backbone", "neck", "head")
        }

    assert rest(small_config) == rest(full_config)
    model = MODELS.build(small_config.model)
    assert model.backbone.num_patches == 64
    if full == LINEAR:
        # the one departure, stated in the configs: AdamW where LARS has too few steps; neither decays weights
        small, large = small_config.optim_wrapper, full_config.optim_wrapper
        assert (small.optimizer.type, large.optimizer.type) == ("AdamW", "emae_mm.LARS")
        assert small.optimizer.weight_decay == large.optimizer.weight_decay == 0.0
        assert (small.type, small.constructor) == (large.type, large.constructor)
