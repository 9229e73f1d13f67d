"""CAE through mmpretrain: the release's settings, and what was corrected on the way.

Sources: lxtGH/CAE ``scripts/cae_base_800e.sh``, ``cae_large_1600e.sh``, ``tools/run_pretraining.py`` (defaults),
``furnace/{datasets,masking_generator,optim_factory}.py``, Atten4Vis/CAE ``scripts/cae_base_300e.sh``.
"""

import copy
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import mmcv
import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmpretrain.datasets.transforms import BEiTMaskGenerator
from mmpretrain.structures import DataSample
from PIL import Image

from emae_mm.checkpoints import export_encoder, load_encoder
from emae_mm.checkpoints.tokenizer import load_tokenizer
from emae_mm.data.beit_views import BlockMask, RandomResizedCropTwoSizes
from emae_mm.engine import launch
from emae_mm.engine.teacher import TeacherBeforeStepHook
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.models import ViTEncoder
from emae_mm.models.algorithms import CAE, DALLETokenizer
from emae_mm.registry import MODELS, TRANSFORMS

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STEPS_PER_EPOCH = 3  # ImageNet's 625 at batch 2048 would only take longer
BATCH, PEAK_LR, MIN_LR = 2048, 1.5e-3, 1e-5


@dataclass(frozen=True)
class Expected:
    """What the release says of one run."""

    width: int
    depth: int
    heads: int
    layer_scale: float
    epochs: int
    warmup: int
    gpus: int
    per_gpu: int


PROTOCOL = {
    "cae_vit-base-p16_8xb256-300e_in1k": Expected(768, 12, 12, 0.1, 300, 10, 8, 256),
    "cae_vit-base-p16_8xb256-800e_in1k": Expected(768, 12, 12, 0.1, 800, 20, 8, 256),
    "cae_vit-base-p16_8xb256-1600e_in1k": Expected(768, 12, 12, 0.1, 1600, 40, 8, 256),
    "cae_vit-large-p16_32xb64-1600e_in1k": Expected(1024, 24, 16, 1e-5, 1600, 40, 32, 64),
}


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        yield


def read(name: str) -> Config:
    return Config.fromfile(CONFIGS / "pretrain" / f"{name}.py")


def build(config: Config) -> CAE:
    """The model without memory for its parameters."""
    on_cpu = partial(torch.linspace, device="cpu")  # mmpretrain reads its drop path rates from a tensor
    with torch.device("meta"), patch.object(torch, "linspace", on_cpu):
        return MODELS.build(config.model | dict(tokenizer="random"))


def test_no_config_is_left_out():
    assert {path.stem for path in (CONFIGS / "pretrain").glob("cae_*.py")} == set(PROTOCOL)


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_model_follows_the_release(name):
    expected, model = PROTOCOL[name], build(read(name))
    encoder, neck = model.backbone, model.neck
    assert (encoder.embed_dim, encoder.depth, encoder.num_heads, encoder.patch_size) == (
        expected.width, expected.depth, expected.heads, 16,
    )  # fmt: skip
    assert (neck.embed_dim, len(neck.regressors), len(neck.decoders)) == (expected.width, 4, 4)
    assert neck.decoders[0].attn.num_heads == neck.regressors[0].cross_attn.num_heads == expected.heads
    assert neck.head.out_features == 8192 and neck.mask_token_num == 98
    assert model.head.loss_module.lambd == 2 and model.momentum == 0
    config = read(name).model
    assert config.backbone.layer_scale_init_value == config.neck.layer_scale_init_value == expected.layer_scale
    for layers in (encoder.layers, model.teacher.layers, neck.decoders, neck.regressors):
        rates = [layer.drop_path.drop_prob for layer in layers]
        assert rates == pytest.approx(list(np.linspace(0, 0.1, len(layers))))
        assert all(type(layer.ffn.dropout_layer) is torch.nn.Identity for layer in layers), "one drop path, not two"
    assert not encoder.pos_embed.requires_grad and encoder.layers[0].attn.bias == "qv_bias"
    assert not any(parameter.requires_grad for part in (model.teacher, model.target_generator)
                   for parameter in part.parameters())  # fmt: skip


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_optimiser_and_batch(name):
    expected, config = PROTOCOL[name], read(name)
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW and wrapper.clip_grad_kwargs["max_norm"] == 3.0
    groups = {name: group for group in wrapper.optimizer.param_groups for name in group["param_names"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups.keys() == trained.keys()
    assert {name.split(".")[0] for name in groups} == {"backbone", "neck"}
    for name_, parameter in trained.items():
        group = groups[name_]
        assert (group["lr"], group["betas"]) == (PEAK_LR, (0.9, 0.999))
        assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), name_
    assert groups["backbone.cls_token"]["weight_decay"] == groups["neck.mask_token"]["weight_decay"] == 0.05
    assert f"_{expected.gpus}xb{expected.per_gpu}-{expected.epochs}e_" in name
    assert config.train_dataloader.batch_size == expected.per_gpu and config.train_dataloader.drop_last
    assert expected.gpus * expected.per_gpu == config.global_batch_size == config.auto_scale_lr.base_batch_size == BATCH


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_learning_rate_follows_the_release(name):
    expected, config = PROTOCOL[name], read(name)
    assert config.train_cfg.max_epochs == config.record.epochs == expected.epochs
    wrapper = build_optim_wrapper(torch.nn.Linear(2, 2), config.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(end=expected.epochs, epoch_length=STEPS_PER_EPOCH) | dict(spec), default_args=dict(optimizer=wrapper)
        )
        for spec in config.param_scheduler
    ]
    found = []
    for _ in range(expected.epochs * STEPS_PER_EPOCH):
        found.append(wrapper.optimizer.param_groups[0]["lr"])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    warm, steps = expected.warmup * STEPS_PER_EPOCH, expected.epochs * STEPS_PER_EPOCH
    rest = np.arange(steps - warm) / (steps - warm)
    wanted = np.concatenate(
        [np.linspace(0, PEAK_LR, warm), MIN_LR + 0.5 * (PEAK_LR - MIN_LR) * (1 + np.cos(math.pi * rest))]
    )
    # the warm-up starts at a millionth of the peak in place of 0; beyond that only rounding
    assert found == pytest.approx(list(wanted), abs=1e-6 * PEAK_LR + 1e-12)


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_data_follow_the_release(name):
    config = read(name)
    load, flip, crop, mask, pack = (TRANSFORMS.build(step) for step in config.train_dataloader.dataset.pipeline)
    assert load.on_broken == "skip" and flip.prob == 0.5 and type(pack).__name__ == "PackInputs"
    assert (crop.scale, crop.second_scale) == ((224, 224), (112, 112))
    assert (crop.crop_ratio_range, crop.aspect_ratio_range) == ((0.08, 1.0), (3 / 4, 4 / 3))
    assert (crop.interpolation, crop.second_interpolation, crop.backend) == ("bicubic", "lanczos", "pillow")
    assert ((mask.height, mask.width), mask.num_masking_patches, mask.min_num_patches) == ((14, 14), 98, 16)
    assert mask.max_num_patches == 98 and mask.log_aspect_ratio == pytest.approx((math.log(0.3), -math.log(0.3)))


def test_the_two_images_are_normalised_differently():
    preprocessor = MODELS.build(read("cae_vit-base-p16_8xb256-300e_in1k").model.data_preprocessor)
    bgr = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    out = preprocessor(dict(inputs=[bgr, bgr], data_samples=[DataSample(), DataSample()]), training=True)["inputs"]
    rgb = bgr.flip(1).double() / 255
    imagenet = (rgb - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    map_pixels = (1 - 2 * 0.1) * rgb + 0.1  # DALL-E's
    # float32 against float64, and the standard mean and deviation rounded to 3 digits
    assert torch.allclose(out[0].double(), imagenet, atol=1e-5)
    assert torch.allclose(out[1].double(), map_pixels, atol=1e-6)


def test_masks_hide_exactly_98_patches_and_reach_every_one():
    np.random.seed(0)
    masks = np.stack([BlockMask((14, 14), 98).transform({})["mask"] for _ in range(300)])
    assert set(masks.sum((1, 2))) == {98} and set(np.unique(masks)) == {0, 1}
    shares = masks.mean(0)
    assert shares.min() > 0
    # blocks lie anywhere with equal probability: opposite edges alike. The mean over 14 patches and 300 masks has a
    # standard deviation below 0.02 even if a mask hid an edge entirely or not at all with probability 0.2.
    edges = [shares[0].mean(), shares[-1].mean(), shares[:, 0].mean(), shares[:, -1].mean()]
    assert max(edges) - min(edges) < 0.1
    theirs = sum(BEiTMaskGenerator((14, 14), 98, min_num_patches=16).transform({})["mask"] for _ in range(300))
    assert not theirs[-1].any() and not theirs[:, -1].any(), "why BlockMask exists: mmpretrain's never hides these"


@pytest.mark.parametrize("hidden, smallest", [(196, 16), (0, 16), (10, 16), (98, 0)])
def test_impossible_masks_are_refused(hidden, smallest):
    with pytest.raises(ConfigError, match="do not fit a grid of 14x14"):
        BlockMask((14, 14), hidden, min_num_patches=smallest)


def test_two_sizes_of_one_crop(monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    crop = RandomResizedCropTwoSizes(64, 32)
    monkeypatch.setattr(crop, "rand_crop_params", lambda img: (5, 7, 80, 100))
    first, second = crop.transform(dict(img=image))["img"]
    pillow = Image.fromarray(image).crop((7, 5, 107, 85))
    assert np.array_equal(first, np.array(pillow.resize((64, 64), Image.Resampling.BICUBIC)))
    assert np.array_equal(second, np.array(pillow.resize((32, 32), Image.Resampling.LANCZOS)))
    aliased = mmcv.imresize(image[5:85, 7:107], (32, 32), interpolation="lanczos")  # as mmpretrain does
    assert np.abs(aliased.astype(int) - second).mean() > 20, "why the class exists: OpenCV does not filter"


TINY = "tiny/cae_vit-tiny64_folder"


def tiny(**kwargs) -> CAE:
    """The small model with its weights initialised."""
    config = read(TINY)
    model = MODELS.build(config.model | {"tokenizer": "random", **kwargs})
    model.init_weights()
    return model


def batch(size: int = 4) -> tuple[list[torch.Tensor], list[DataSample]]:
    masks = [BlockMask((8, 8), 32, min_num_patches=4).transform({})["mask"] for _ in range(size)]
    samples = [DataSample() for _ in masks]
    for sample, mask in zip(samples, masks, strict=True):
        sample.set_mask(mask)
    return [torch.randn(size, 3, 64, 64), torch.rand(size, 3, 64, 64)], samples


def jitter(model: torch.nn.Module) -> None:
    """No parameter keeps a value (0, 1, LayerScale 0.1) that could hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("model", ["ours", "timm"])
def test_exported_encoder_gives_the_same_features(tmp_path, model):
    cae = tiny()
    jitter(cae.backbone)
    cae.eval()
    images = torch.randn(2, 3, 64, 64)
    export_encoder(cae.encoder_for_export(), tmp_path / "encoder.pth", {"method": "CAE"})
    if model == "ours":
        arch = dict(embed_dim=128, depth=6, num_heads=4)
        encoder = ViTEncoder(arch, img_size=64, patch_size=8, init_values=1.0).eval()
        load_encoder(encoder, tmp_path / "encoder.pth")
        features = encoder(images)
    else:
        encoder = timm.models.VisionTransformer(
            img_size=64, patch_size=8, embed_dim=128, depth=6, num_heads=4, num_classes=0, init_values=1.0,
        ).eval()  # fmt: skip
        encoder.load_state_dict(torch.load(tmp_path / "encoder.pth", weights_only=True)["model"])
        features = encoder.forward_features(images)
    assert features.shape == (2, 65, 128)
    # float32, six blocks, attention by another kernel
    assert torch.allclose(features, cae.extract_feat(images), atol=1e-5)


def test_an_encoder_without_layer_scale_is_exported_without():
    config = read(TINY).model
    config.backbone.layer_scale_init_value = 0.0
    cae = MODELS.build(config | {"tokenizer": "random"}).eval()
    cae.init_weights()
    exported = cae.encoder_for_export().eval()
    images = torch.randn(1, 3, 64, 64)
    assert not any("gamma" in name for name in exported.state_dict())
    assert torch.allclose(exported(images), cae.extract_feat(images), atol=1e-5)  # as above


def test_layer_scale_without_init_values_is_explained(tmp_path):
    export_encoder(tiny().encoder_for_export(), tmp_path / "encoder.pth", {})
    encoder = ViTEncoder(dict(embed_dim=128, depth=6, num_heads=4), img_size=64, patch_size=8)
    with pytest.raises(CheckpointError, match=r"ls1\.gamma: not in the model") as caught:
        load_encoder(encoder, tmp_path / "encoder.pth")
    assert "model.backbone.init_values=0.1" in caught.value.fix


def test_losses_against_plain_loops():
    model = tiny().eval()  # no drop path
    jitter(model.backbone)  # so that the teacher is another network
    before = copy.deepcopy(model)
    images, samples = batch(2)
    mask = torch.stack([sample.mask for sample in samples]).flatten(1).bool()
    losses = model.loss(images, samples)
    assert set(losses) == {"loss_tokens", "loss_alignment"}

    positions = before.backbone.pos_embed[0, 1:]
    tokens = alignment = 0.0
    with torch.no_grad():
        codes = before.target_generator(images[1]).flatten(2).argmax(1)
        for image, hidden, code in zip(images[0], mask, codes, strict=True):
            seen = before.backbone(image[None], hidden[None])[:, 1:]
            latents = before.teacher(image[None], ~hidden[None])[0, 1:]
            logits, regressed = before.neck(seen, positions[hidden][None], positions[~hidden][None])
            for logit, latent, target, wanted in zip(logits[0], regressed[0], latents, code[hidden], strict=True):
                probabilities = logit.double().exp() / logit.double().exp().sum()
                tokens -= probabilities[wanted].log().item() / mask.sum().item()
                alignment += 2 * (latent.double() - target.double()).square().mean().item() / mask.sum().item()
    assert len(codes.unique()) > 1
    # float32 against sums in float64
    assert losses["loss_tokens"].item() == pytest.approx(tokens, rel=1e-5)
    assert losses["loss_alignment"].item() == pytest.approx(alignment, rel=1e-5)


def test_everything_trained_gets_a_gradient_and_nothing_else():
    model = tiny()
    sum(model.loss(*batch()).values()).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_autocast_changes_no_code():
    tokenizer = tiny().target_generator
    images = torch.rand(8, 3, 64, 64)
    wanted = tokenizer(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = tokenizer(images)
    assert found.dtype == torch.float32 and torch.equal(found, wanted) and not found.requires_grad


def snapshot(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other))


@pytest.mark.parametrize("accumulated, hooked", [(1, False), (1, True), (3, True)])
def test_the_teacher_lags_one_optimiser_step(accumulated, hooked):
    model = tiny().train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    if hooked:
        runner = SimpleNamespace(model=model, optim_wrapper=SimpleNamespace(optimizer=optimizer))
        TeacherBeforeStepHook().before_train(runner)
    used = []  # by the teacher's passes
    model.teacher.register_forward_pre_hook(lambda module, args: used.append(snapshot(module)))
    before_steps = []
    for _ in range(3):
        before_steps.append(snapshot(model.backbone))
        for _ in range(accumulated):
            sum(model.loss(*batch(2)).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not same(before_steps[0], before_steps[1])
    # in the first step the teacher is the encoder itself, then the encoder of the step before
    wanted = [before_steps[max(step - 1, 0)] for step in range(3) for _ in range(accumulated)]
    assert all(map(same, used, wanted)) and len(used) == len(wanted)
    assert same(snapshot(model.teacher), before_steps[-1])


def test_momentum_moves_the_teacher_part_of_the_way():
    model = tiny(base_momentum=0.75)
    jitter(model.backbone)
    student, teacher = snapshot(model.backbone), snapshot(model.teacher)
    model.update_teacher()
    for new, old, goal in zip(snapshot(model.teacher), teacher, student, strict=True):
        assert torch.allclose(new, 0.75 * old + 0.25 * goal, atol=1e-6)  # float32 rounding


def small_tokenizer() -> DALLETokenizer:
    return DALLETokenizer(n_hid=8, vocab_size=64)


def test_tokenizer_from_a_file(tmp_path):
    source, images = small_tokenizer(), torch.rand(1, 3, 32, 32)
    for name, content in (("plain", source.state_dict()), ("openmmlab", dict(state_dict=source.state_dict()))):
        torch.save(content, tmp_path / f"{name}.pth")
        loaded = small_tokenizer()
        load_tokenizer(loaded, str(tmp_path / f"{name}.pth"))
        assert torch.equal(loaded(images), source(images))
    torch.save(source.state_dict(), tmp_path / "encoder.pth")
    model = tiny(tokenizer=str(tmp_path / "encoder.pth"))
    assert torch.equal(model.target_generator(images), source(images))


def test_unusable_tokenizers_are_refused(tmp_path):
    whole = tmp_path / "encoder.pkl"
    torch.save(small_tokenizer(), whole)  # as OpenAI's: an object, not tensors
    with pytest.raises(CheckpointError, match="would run code") as caught:
        load_tokenizer(small_tokenizer(), str(whole))
    assert "state_dict()" in caught.value.fix and "tokenizer=" in caught.value.fix
    torch.save(DALLETokenizer(n_hid=8, vocab_size=32).state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"does not fit the tokenizer \(2 mismatches\).*output.conv.w"):
        load_tokenizer(small_tokenizer(), str(tmp_path / "other.pth"))


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_a_missing_tokenizer_is_refused_before_anything_else(name, tmp_path):
    for options in ({}, {"tokenizer": str(tmp_path / "absent.pth")}):
        cfg = launch.prepare_config(f"pretrain/{name}", work_dir=tmp_path / "work", cfg_options=options)
        with pytest.raises(ConfigError, match="tokenizer") as caught:
            launch.run(cfg)  # there are no data either
        for said in ("DALL-E", "github.com/openai/DALL-E", "--cfg-options tokenizer=", "'random'"):
            assert said in caught.value.fix
    assert not (tmp_path / "work").exists()


def test_only_an_untrained_tokenizer_changes_the_recipe(tmp_path):
    (tmp_path / "t.pth").touch()
    name = f"pretrain/{next(iter(PROTOCOL))}"
    cfg = launch.prepare_config(name, cfg_options={"tokenizer": str(tmp_path / "t.pth")})
    assert cfg.model.tokenizer == str(tmp_path / "t.pth") and "protocol" not in cfg.record
    cfg = launch.prepare_config(name, cfg_options={"tokenizer": "random"})
    assert cfg.record.protocol.endswith("with tokenizer=random")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two classes, stripes across and along, of 32 training and 8 validation images each."""
    root, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, number in (("train", 32), ("val", 8)):
        for kind in ("across", "along"):
            folder = root / split / kind
            folder.mkdir(parents=True)
            for index in range(number):
                stripes = 127 * (1 + np.sin(np.arange(72) * generator.uniform(0.2, 0.6) + generator.uniform(0, 6)))
                image = np.broadcast_to(stripes[:, None, None], (72, 72, 3)) * generator.uniform(0.5, 1, 3)
                image = image if kind == "across" else image.swapaxes(0, 1)
                Image.fromarray(image.astype(np.uint8)).save(folder / f"{index}.png")
    return root


def test_a_small_run_learns_and_its_encoder_is_transferred(pictures, tmp_path):
    options = {
        "train_cfg.max_epochs": 4,
        "global_batch_size": 16,
        "train_dataloader.batch_size": 16,
        "default_hooks.logger.interval": 1,
    }
    cfg = launch.prepare_config(f"pretrain/{TINY}", work_dir=tmp_path / "run", data_root=pictures, cfg_options=options)
    launch.run(cfg, quiet=True)
    (log,) = (tmp_path / "run").rglob("scalars.json")
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(steps) == 16
    for step in steps:  # float32 sums
        assert step["loss"] == pytest.approx(step["loss_tokens"] + step["loss_alignment"], rel=1e-5)
        assert math.isfinite(step["grad_norm"])
    tokens = [step["loss_tokens"] for step in steps]
    # 64 codes, nothing known; Xavier's logits have a variance near 1 at this width, which adds half of it
    assert math.log(64) < tokens[0] < math.log(64) + 1
    assert np.mean(tokens[-4:]) < 0.8 * np.mean(tokens[:4])

    encoder = tmp_path / "run" / "encoder.pth"
    content = torch.load(encoder, weights_only=True)
    assert content["meta"]["method"] == "CAE" and "blocks.5.ls2.gamma" in content["model"]
    knn = dict(
        config="classification/tiny/knn_vit-tiny64_folder", data_root=pictures, pretrained=str(encoder),
        work_dir=tmp_path / "knn",
    )  # fmt: skip
    options = {"model.backbone.init_values": 0.1, "test_cfg.k": [5], "test_cfg.primary_k": 5}
    launch.test(launch.prepare_config(**knn, cfg_options=options), quiet=True)
    record = json.loads((knn["work_dir"] / "record.json").read_text())
    assert (record["method"], record["arch"]) == ("CAE", "ViT-128x6/8")
