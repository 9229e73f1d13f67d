"""Learning-rate scales and weight decay per parameter, against timm and the published protocols."""

import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from timm.optim import param_groups_layer_decay
from torch import nn

import emae_mm.registry  # noqa: F401
from emae_mm.errors import ConfigError
from emae_mm.models.vit import ViTForClassification

DEPTH = 12
ARCH = dict(embed_dim=16, depth=DEPTH, num_heads=2)  # ViT-B's layers at another width: scales depend on depth alone


class Classifier(nn.Module):
    def __init__(self, **backbone):
        super().__init__()
        options = dict(arch=ARCH, img_size=32, patch_size=8, pool="avg", learn_pos_embed=True) | backbone
        self.backbone = ViTForClassification(**options)
        self.head = nn.Linear(16, 5)

    def forward(self, images):
        return self.head(self.backbone(images)[-1])


class Detector(nn.Module):
    """Norms in the backbone, channel norms in neck and head, as ViTDet has."""

    def __init__(self):
        super().__init__()
        self.backbone = ViTForClassification(
            arch=ARCH, img_size=32, patch_size=8, learn_pos_embed=True, init_values=1.0
        )
        self.neck = nn.Sequential(nn.Conv2d(16, 8, 1, bias=False), nn.LayerNorm(8))
        self.head = nn.Linear(8, 5)


def wrapper_of(model, paramwise, *, wrapper="OptimWrapper", **optimizer):
    return build_optim_wrapper(
        model,
        dict(
            type=wrapper,
            optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05) | optimizer,
            constructor="emae_mm.LayerDecayOptimWrapperConstructor",
            paramwise_cfg=paramwise,
        ),
    )


def table(wrapper):
    """Name -> (learning rate, weight decay), from what the optimiser really holds."""
    return {
        name: (group["lr"], group["weight_decay"])
        for group in wrapper.optimizer.param_groups
        for name in group["param_names"]
    }


def test_fine_tuning_groups_are_timms():
    ours = table(
        wrapper_of(
            Classifier(),
            dict(layer_decay_rate=0.65, no_decay_1d=True, no_decay_names=["cls_token", "pos_embed"]),
        )
    )
    reference = timm.create_model(
        "vit_base_patch16_224", embed_dim=16, num_heads=2, num_classes=5, img_size=32, patch_size=8,
        global_pool="avg", class_token=True,
    )  # fmt: skip
    names = {id(parameter): name for name, parameter in reference.named_parameters()}
    groups = param_groups_layer_decay(
        reference, weight_decay=0.05, no_weight_decay_list=reference.no_weight_decay(), layer_decay=0.65
    )
    expected = {
        names[id(parameter)]: (2e-3 * group["lr_scale"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    renamed = {name.removeprefix("backbone.").replace("head.fc.", "head."): value for name, value in ours.items()}
    assert set(renamed) == set(expected)
    for name, (lr, decay) in expected.items():
        # powers of 0.65 in another order of multiplication: a few ulp of float64
        assert renamed[name] == (pytest.approx(lr, rel=1e-12), decay), name
    assert len({lr for lr, _ in ours.values()}) == 14  # embeddings, 12 blocks, head
    assert ours["head.weight"] == (*ours["backbone.fc_norm.weight"][:1], 0.05) == (2e-3, 0.05)
    assert ours["backbone.pos_embed"] == (pytest.approx(2e-3 * 0.65**13), 0.0)


def test_every_trained_parameter_is_in_exactly_one_group_and_the_names_are_its_own():
    model = Detector()
    model.neck.requires_grad_(False)
    wrapper = wrapper_of(model, dict(layer_decay_rate=0.7))
    own = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = [
        (own[id(parameter)], name)
        for group in wrapper.optimizer.param_groups
        for parameter, name in zip(group["params"], group["param_names"], strict=True)
    ]
    assert all(a == b for a, b in pairs)
    assert sorted(name for _, name in pairs) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
    keys = [(group["lr"], group["weight_decay"]) for group in wrapper.optimizer.param_groups]
    assert len(set(keys)) == len(keys), "groups with the same settings are merged"


@pytest.mark.parametrize(
    ("paramwise", "exempt"),
    [
        # ViTDet: norms and positions of the backbone; biases and the neck's channel norms decay
        (
            dict(layer_decay_rate=0.7, no_decay_norms="backbone", no_decay_names=["pos_embed"]),
            {"pos_embed": True, "norm1.weight": True, "norm1.bias": True, "qkv.bias": False, "ls1.gamma": False,
             "cls_token": False, "neck.1.weight": False, "head.bias": False, "qkv.weight": False},
        ),
        # UperNet in MAE's settings: all 1-D parameters, positions decay
        (
            dict(layer_decay_rate=0.65, no_decay_1d=True),
            {"pos_embed": False, "cls_token": False, "norm1.weight": True, "qkv.bias": True, "ls1.gamma": True,
             "neck.1.weight": True, "head.bias": True, "head.weight": False},
        ),
        # pre-training: class token decays as in the MAE release
        (
            dict(no_decay_1d=True),
            {"cls_token": False, "norm1.weight": True, "qkv.bias": True, "qkv.weight": False},
        ),
        # norms everywhere, other 1-D parameters of the backbone only
        (
            dict(no_decay_norms=True, no_decay_1d="backbone"),
            {"neck.1.weight": True, "qkv.bias": True, "head.bias": False, "neck.0.weight": False},
        ),
        (dict(), {"norm1.weight": False, "head.bias": False, "pos_embed": False}),
    ],
)  # fmt: skip
def test_weight_decay_rules(paramwise, exempt):
    found = table(wrapper_of(Detector(), paramwise))
    for ending, expected in exempt.items():
        decays = {value[1] for name, value in found.items() if name.endswith(ending)}
        assert decays == {0.0 if expected else 0.05}, ending


def test_vitdet_scales():
    found = table(wrapper_of(Detector(), dict(layer_decay_rate=0.7)))
    for name, exponent in {
        "backbone.patch_embed.proj.weight": 13,
        "backbone.pos_embed": 13,
        "backbone.blocks.0.attn.qkv.weight": 12,
        "backbone.blocks.11.mlp.fc2.bias": 1,
        "neck.0.weight": 0,
        "head.weight": 0,
    }.items():
        assert found[name][0] == pytest.approx(2e-3 * 0.7**exponent, rel=1e-12), name


def test_compiled_and_wrapped_models_have_the_same_groups():
    plain = table(wrapper_of(Classifier(), dict(layer_decay_rate=0.65, no_decay_names=["cls_token"])))
    wrapped = nn.Module()
    wrapped.module = Classifier()  # what (MM)DistributedDataParallel looks like from outside
    compiled_backbone = Classifier()
    compiled_backbone.backbone = torch.compile(compiled_backbone.backbone)
    for model in (wrapped, torch.compile(Classifier()), compiled_backbone):
        assert table(wrapper_of(model, dict(layer_decay_rate=0.65, no_decay_names=["cls_token"]))) == plain


def test_other_wrapper_types_step_and_restore():
    model = Classifier()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type="OptimWrapper",
            accumulative_counts=2,
            clip_grad=dict(max_norm=1.0),
            optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.05),
            constructor="emae_mm.LayerDecayOptimWrapperConstructor",
            paramwise_cfg=dict(layer_decay_rate=0.65, no_decay_1d=True),
        ),
    )
    before = model.head.weight.detach().clone()
    for _ in range(2):
        wrapper.update_params(model(torch.randn(2, 3, 32, 32)).square().mean())
    assert not torch.equal(before, model.head.weight)
    other = wrapper_of(Classifier(), dict(layer_decay_rate=0.65, no_decay_1d=True))
    other.load_state_dict(wrapper.state_dict())
    assert table(other) == table(wrapper)


@pytest.mark.parametrize(
    ("paramwise", "optimizer", "message"),
    [
        (dict(layer_decay=0.65), {}, "layer_decay"),
        (dict(layer_decay_rate=1.5), {}, "1.5"),
        (dict(no_decay_1d="head"), {}, "no_decay_1d='head'"),
        (dict(no_decay_names=["pos_embd"]), {}, "pos_embd"),
        (dict(no_decay_names="pos_embed"), {}, "string"),
        ({}, dict(weight_decay=None), "weight_decay"),
    ],
)
def test_bad_options_are_named(paramwise, optimizer, message):
    with pytest.raises(ConfigError, match=message):
        wrapper_of(Classifier(), paramwise, **optimizer)


def test_a_backbone_without_layers_and_a_frozen_model_are_errors():
    model = Classifier()
    model.backbone = nn.Linear(3, 16)
    assert len(table(wrapper_of(model, dict(no_decay_1d=True)))) == 4  # no layer decay asked: any backbone serves
    with pytest.raises(ConfigError, match="get_layer_depth"):
        wrapper_of(model, dict(layer_decay_rate=0.9))
    with pytest.raises(ConfigError, match="no parameter"):
        wrapper_of(Classifier().requires_grad_(False), {})
