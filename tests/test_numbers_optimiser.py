"""Learning rates and decays of whole models against timm; a linear probe's first steps against the published rule."""

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from timm.optim import param_groups_layer_decay

from emae_mm.models import DenseViT, ViTForClassification
from emae_mm.registry import MODELS


class WithHead(torch.nn.Module):
    def __init__(self, backbone, classes: int = 1000):
        super().__init__()
        self.backbone, self.head = backbone, torch.nn.Linear(backbone.embed_dim, classes)


def table(model, layer_decay: float, names: list[str]) -> dict[str, tuple[float, float]]:
    """Name -> (factor of the learning rate, weight decay) of what the optimiser holds."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.05),
            constructor="emae_mm.LayerDecayOptimWrapperConstructor",
            paramwise_cfg=dict(layer_decay_rate=layer_decay, no_decay_1d=True, no_decay_names=names),
        ),
    )
    groups = wrapper.optimizer.param_groups
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}


def timms_table(model, layer_decay: float) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=layer_decay)
    return {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}


def assert_equal(ours: dict, theirs: dict) -> None:
    assert set(ours) == set(theirs)
    for name, (scale, decay) in theirs.items():
        assert ours[name] == (pytest.approx(scale, rel=1e-12), decay), name  # the order of multiplications


@pytest.mark.parametrize(
    ("arch", "name", "decay", "scales"),
    [("base", "vit_base_patch16_224", 0.65, 14), ("large", "vit_large_patch16_224", 0.75, 26)],
)
def test_fine_tuning_of_whole_models_has_timms_rates(arch, name, decay, scales):
    """Every parameter; timm's model has the class token's position in ``pos_embed``, as ours."""
    with torch.device("meta"):
        ours = WithHead(ViTForClassification(arch, pool="avg", learn_pos_embed=True))
        theirs = timm.create_model(name, global_pool="avg")
    found = table(ours, decay, ["cls_token", "pos_embed"])
    found = {key.removeprefix("backbone."): value for key, value in found.items()}
    assert_equal(found, timms_table(theirs, decay))
    assert len({scale for scale, _ in found.values()}) == scales


@pytest.mark.parametrize(
    ("arch", "layer_decay", "global_blocks"), [("base", 0.7, (2, 5, 8, 11)), ("large", 0.8, (5, 11, 17, 23))]
)
def test_vitdet_backbones_have_the_rates_of_timms_sam(arch, layer_decay, global_blocks):
    """Relative positions go with their block.

    Two differences are known: timm counts its neck as the layer after the blocks, where our head is; and it exempts
    positions from weight decay by name, which is said in our config and not here.
    """
    with torch.device("meta"):
        backbone = DenseViT(
            arch, img_size=1024, window_size=14, global_blocks=global_blocks, rel_pos_bias="decomposed",
            use_cls_token=False, out_indices=(global_blocks[-1],),
        )  # fmt: skip
        theirs = timm.create_model(f"samvit_{arch}_patch16", num_classes=0)
    found = {key.removeprefix("backbone."): v for key, v in table(WithHead(backbone), layer_decay, []).items()}
    expected = timms_table(theirs, layer_decay)
    shared = set(found) & set(expected)
    assert {key.split(".")[0] for key in set(expected) - shared} == {"neck"}
    assert {key.split(".")[0] for key in set(found) - shared} == {"head"}
    assert sum("rel_pos" in key for key in shared) == 2 * backbone.depth
    for key in shared - {"pos_embed"}:
        assert found[key] == (pytest.approx(expected[key][0], rel=1e-12), expected[key][1]), key
    assert found["pos_embed"][0] == pytest.approx(expected["pos_embed"][0], rel=1e-12)
    assert found["head.weight"][0] == expected["neck.0.weight"][0] == 1.0


# --- the linear probe ----------------------------------------------------------------------------------------------

PROBE = "configs/classification/linear_vit-base-p16_8xb2048-90e_in1k.py"
MOMENTUM, TRUST, EPS = 0.9, 0.001, 1e-6


def softmax_gradient(features, labels, weight, bias):
    """Gradients of mean cross entropy of a linear classifier, float64."""
    logits = features @ weight.T + bias
    odds = np.exp(logits - logits.max(1, keepdims=True))
    odds /= odds.sum(1, keepdims=True)
    odds[np.arange(len(labels)), labels] -= 1
    odds /= len(labels)
    return odds.T @ features, odds.sum(0)


def normalised(features):
    """Batch norm in training: biased variance of the batch."""
    return (features - features.mean(0)) / np.sqrt(features.var(0) + EPS)


def test_first_steps_of_the_linear_probe(repo):
    """The published config's model and optimiser for five steps of warm-up and after, against all of it in float64.

    You et al., eq. 6, as the MAE release applies it: local rate = trust * |w| / |gradient| for weights, 1 for biases;
    momentum over scaled gradients, then times the rate of the schedule.
    """
    cfg = Config.fromfile(repo / PROBE)
    classes = cfg.model.head.num_classes
    cfg.model.backbone.update(arch=dict(embed_dim=768, depth=1, num_heads=12), img_size=32, pretrained="random")
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(cfg.model)
        model.init_weights()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    linear = model.head.fc
    assert abs(linear.weight.std().item() - 0.01) < 1e-4  # (1000 x 768 draws of a truncated normal)
    weight, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
    buffers = [np.zeros_like(weight), np.zeros_like(bias)]
    rng = np.random.default_rng(0)
    for lr in (6.4e-6, 0.64, 3.2, 6.4, 6.0):
        images = torch.from_numpy(rng.normal(size=(24, 3, 32, 32)).astype(np.float32))
        labels = rng.integers(classes, size=24)
        with torch.no_grad():
            features = model.backbone(images)[-1].double().numpy()
        for group in wrapper.optimizer.param_groups:
            group["lr"] = lr
        score = linear(model.neck((model.backbone(images)[-1],))[-1])
        wrapper.update_params(torch.nn.functional.cross_entropy(score, torch.from_numpy(labels)))
        slope, offset_slope = softmax_gradient(normalised(features), labels, weight, bias)
        slope *= TRUST * np.linalg.norm(weight) / np.linalg.norm(slope)
        buffers = [MOMENTUM * buffers[0] + slope, MOMENTUM * buffers[1] + offset_slope]
        weight, bias = weight - lr * buffers[0], bias - lr * buffers[1]
    # float32 against float64: weights are of size 0.01, biases of size 1 after a plain step at rate 6.4
    np.testing.assert_allclose(linear.weight.detach().numpy(), weight, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(linear.bias.detach().numpy(), bias, rtol=1e-4, atol=1e-6)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == ["head.fc.weight", "head.fc.bias"]
    (norm,) = (module for module in model.neck.modules() if isinstance(module, torch.nn.BatchNorm1d))
    assert norm.weight is None and norm.eps == EPS and norm.num_batches_tracked == 5
