"""What the tables of tests/protocols cannot hold of the full-size classification configs: draws, features, modes."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

import emae_mm.registry  # noqa: F401
from emae_mm.registry import MODELS

LINEAR = "classification/linear_vit-base-p16_8xb2048-90e_in1k.py"
POOLED = "classification/linear-pooled_vit-base-p16_8xb2048-90e_in1k.py"
FINETUNE = "classification/finetune_vit-base-p16_8xb128-100e_in1k.py"


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


def test_linear_probe_is_the_releases(load):
    """Drawn, trained and computed as in the MAE release (main_linprobe.py)."""
    config = load(LINEAR)
    assert config.global_batch_size == config.auto_scale_lr.base_batch_size == 16384
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"head.fc.weight", "head.fc.bias"}
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not model.head.fc.bias.any()
    images = torch.randn(2, 3, 224, 224)
    feature = model.extract_feat(images, stage="backbone")[-1]
    torch.testing.assert_close(feature, model.backbone.encode(model.backbone.embed(images))[:, 0])


def test_pooled_probe_sees_the_mean_of_the_normalised_patch_tokens(load):
    model = small(load(POOLED)).train()
    images = torch.randn(2, 3, 224, 224)
    feature = model.extract_feat(images, stage="backbone")[-1]
    torch.testing.assert_close(feature, model.backbone.encode(model.backbone.embed(images))[:, 1:].mean(dim=1))


def test_fine_tuning_is_the_releases(load):
    """Drawn and trained as in the MAE release (main_finetune.py)."""
    config = load(FINETUNE)
    assert config.global_batch_size == config.auto_scale_lr.base_batch_size == 1024
    model = small(config)
    model.init_weights()
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    trained = {name for group in wrapper.optimizer.param_groups for name in group["param_names"]}
    assert trained == {name for name, _ in model.named_parameters()}, "everything is trained"
    assert model.head.fc.weight.std().item() == pytest.approx(2e-5, rel=0.2)  # 16000 draws
    assert not model.head.fc.bias.any()


@pytest.mark.parametrize("task", ["knn", "linear", "finetune"])
@pytest.mark.parametrize("variant", ["demo/{}_vit-demo_demo.py", "tiny/{}_vit-tiny64_folder.py"])
def test_small_variants_build(load, task, variant):
    config = load(f"classification/{variant.format(task)}")
    model = MODELS.build(config.model)
    assert model.backbone.num_patches == 64
    if task == "linear":
        # the one departure, stated in the configs: AdamW where LARS has too few steps; neither decays weights
        assert (config.optim_wrapper.optimizer.type, config.optim_wrapper.optimizer.weight_decay) == ("AdamW", 0.0)
