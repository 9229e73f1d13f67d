"""The configs of RC-MAE and Multi-View MAE hold the published settings, and what was chosen where there are none.

Sources: RC-MAE's release (``engine_pretrain.py``, ``models_rc.py``, its scripts) and paper (arXiv:2210.02077);
Multi-View MAE (doi:10.3390/app132212413), of which headings, tables and abstract are at hand: MAE's settings otherwise.
"""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from emae_mm.engine.distributed import adapt_to_cpu, share_batch
from emae_mm.leaderboard.published import load_published
from emae_mm.models import masking
from emae_mm.models.algorithms import RCMAE, MultiViewMAE
from emae_mm.registry import HOOKS, MODELS, TRANSFORMS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ENCODERS = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}
# name: encoder, decoder (width, depth, heads), images a pass and GPU, GPUs, passes a step, epochs
RC_MAE = {
    "rc-mae_vit-small-p16_8xb256-1600e_in1k": ("small", (256, 4, 8), 256, 8, 2, 1600),
    "rc-mae_vit-base-p16_8xb256-800e_in1k": ("base", (512, 8, 16), 256, 8, 2, 800),
    "rc-mae_vit-base-p16_8xb256-1600e_in1k": ("base", (512, 8, 16), 256, 8, 2, 1600),
    "rc-mae_vit-large-p16_16xb128-1600e_in1k": ("large", (512, 8, 16), 128, 16, 2, 1600),
}
MULTI_VIEW = {
    "multi-view-mae_vit-base-p16_16xb256-800e_in1k": ("base", (512, 8, 16), 256, 16, 1, 800),
    "multi-view-mae_vit-base-p16_16xb256-1600e_in1k": ("base", (512, 8, 16), 256, 16, 1, 1600),
}
ALL = RC_MAE | MULTI_VIEW
SMALL = {
    "tiny/rc-mae_vit-tiny64_folder": "rc-mae_vit-base-p16_8xb256-800e_in1k",
    "tiny/multi-view-mae_vit-tiny64_folder": "multi-view-mae_vit-base-p16_16xb256-800e_in1k",
}


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        yield


def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / "pretrain" / f"{name}.py")


def build(config: Config):
    """The model without memory for its parameters."""
    with torch.device("meta"):
        return MODELS.build(config.model)


def test_no_config_is_left_out():
    found = {path.stem for kind in ("rc-mae", "multi-view-mae") for path in (CONFIGS / "pretrain").glob(f"{kind}_*.py")}
    assert found == set(ALL)


@pytest.mark.parametrize("name", list(ALL))
def test_encoder_decoder_and_targets(name):
    arch, decoder, *_ = ALL[name]
    model = build(read(name))
    assert (model.backbone.embed_dim, model.backbone.depth, model.backbone.num_heads) == ENCODERS[arch]
    assert (model.backbone.num_patches, model.backbone.patch_size) == (196, 16)
    blocks = model.decoder.decoder_blocks
    assert (model.decoder.decoder_embed.out_features, len(blocks), blocks[0].attn.num_heads) == decoder
    assert model.norm_pix is True and type(model.masking) is masking.RandomMasking
    assert (model.reconstruction_weight, model.consistency_weight) == (1, 0)
    assert model.predicted_share == 1 and model.parts_per_pass is None


@pytest.mark.parametrize("name", list(ALL))
def test_optimiser_batch_and_schedule(name):
    _, _, per_pass, gpus, passes, epochs = ALL[name]
    config = read(name)
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW and "clip_grad" not in config.optim_wrapper
    groups = {one: group for group in wrapper.optimizer.param_groups for one in group["param_names"]}
    trained = {one: parameter for one, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups.keys() == trained.keys() and not any(one.startswith("teacher.") for one in groups)
    for one, parameter in trained.items():
        assert groups[one]["lr"] == pytest.approx(1.5e-4 * 4096 / 256) and groups[one]["betas"] == (0.9, 0.95)
        assert groups[one]["weight_decay"] == (0.05 if parameter.ndim > 1 else 0), one
    warmup, cosine = config.param_scheduler
    assert (warmup.type, warmup.end, cosine.type, cosine.begin, cosine.eta_min) == (
        "LinearLR", 40, "CosineAnnealingLR", 40, 0,
    )  # fmt: skip
    assert config.train_cfg.max_epochs == config.record.epochs == epochs
    assert config.train_dataloader.batch_size == per_pass and f"_{gpus}xb{per_pass}-{epochs}e_" in name
    assert gpus * per_pass * passes == config.global_batch_size == 4096


@pytest.mark.parametrize("name", list(ALL))
def test_passes_a_step_on_as_many_gpus_as_the_name_says(name, monkeypatch):
    _, _, per_pass, gpus, passes, _ = ALL[name]
    config = read(name)
    config.launcher = "pytorch"
    monkeypatch.setenv("WORLD_SIZE", str(gpus))
    share_batch(config)
    assert config.train_dataloader.batch_size == per_pass
    assert config.optim_wrapper.get("accumulative_counts", 1) == passes, "RC-MAE's release: two teacher updates a step"


@pytest.mark.parametrize("name", list(RC_MAE))
def test_rc_mae(name):
    config = read(name)
    model = build(config)
    assert type(model) is RCMAE and model.masking.mask_ratio == 0.75
    assert (model.teacher_weight, model.momentum, model.end_momentum) == (1.0, 0.996, 1.0)
    assert (model.ema_index, model.ema_per) == ("epoch_local", "micro"), "as released"
    hook = HOOKS.build(config.default_hooks.teacher)
    assert type(hook).__name__ == "FollowStudentHook"
    assert config.record.method == "RC-MAE"


@pytest.mark.parametrize("name", list(MULTI_VIEW))
def test_multi_view_mae(name):
    config = read(name)
    model = build(config)
    assert type(model) is MultiViewMAE and model.masking.mask_ratio == 0.8
    (group,) = model.masking.groups(model.masking.draw(1, 196))
    assert group.ids_keep.shape[-1] == 39
    assert (model.contrast_weight, model.temperature, model.two_targets) == (1.0, 0.1, True)
    first, norm, activation, last = model.projector
    assert (first.in_features, first.out_features, last.in_features, last.out_features) == (768, 2048, 2048, 128)
    assert type(norm) is nn.SyncBatchNorm and type(activation) is nn.ReLU
    assert config.record.method == "Multi-View MAE"
    adapt_to_cpu(config)
    assert type(build(config).projector[1]) is nn.BatchNorm1d, "SyncBN exists on GPUs only"


@pytest.mark.parametrize("name", [*ALL, *SMALL])
def test_augmentation(name):
    load, *middle, pack = (TRANSFORMS.build(step) for step in read(name).train_dataloader.dataset.pipeline)
    assert load.on_broken == "skip" and type(pack).__name__ == "PackInputs"
    if "multi-view" in name:
        (views,) = middle
        assert type(views).__name__ == "MultiView" and len(views.transforms) == 2
        middle = views.transforms[0].transforms
    *crop, flip = middle
    (crop,) = crop or [load.crop]  # loading may crop at once
    size = 64 if name.startswith("tiny/") else 224
    assert (crop.scale, crop.crop_ratio_range, crop.aspect_ratio_range) == ((size, size), (0.2, 1.0), (3 / 4, 4 / 3))
    assert (crop.interpolation, crop.backend) == ("bicubic", "pillow")
    assert (flip.prob, flip.direction) == (0.5, "horizontal"), "no colour, no blur"


@pytest.mark.parametrize(("small", "full"), list(SMALL.items()))
def test_small_configs_are_the_full_ones_with_a_small_encoder(small, full):
    small, full = read(small), read(full)
    models = build(small), build(full)
    assert type(models[0]) is type(models[1]) and vars(models[0].masking) == vars(models[1].masking)
    for attribute in ("teacher_weight", "momentum", "end_momentum", "ema_index", "ema_per", "contrast_weight",
                      "temperature", "two_targets", "norm_pix", "reconstruction_weight"):  # fmt: skip
        assert getattr(models[0], attribute, None) == getattr(models[1], attribute, None)
    assert small.default_hooks == full.default_hooks
    optimisers = dict(small.optim_wrapper.optimizer), dict(full.optim_wrapper.optimizer)
    for one in optimisers:
        one.pop("lr")  # is its own at so short a schedule
    assert optimisers[0] == optimisers[1]
    assert small.record.epochs == small.train_cfg.max_epochs


@pytest.mark.parametrize("name", list(ALL))
def test_published_results_in_the_header(name):
    header = (CONFIGS / "pretrain" / f"{name}.py").read_text().split("_base_")[0]
    method = "RC-MAE" if name in RC_MAE else "Multi-View MAE"
    arch, epochs = f"ViT-{ALL[name][0][0].upper()}", ALL[name][-1]
    known = [
        row.value
        for row in load_published()
        if row.task in ("imagenet-linear", "imagenet-finetune")
        and (row.method, row.pretrain_epochs) == (method, epochs)
        and row.arch in (arch, "")  # Multi-View MAE's tables do not name it
    ]
    for value in known:
        assert re.search(rf"\b{value}\b", header), value
    assert known or "No published result was found" in header
