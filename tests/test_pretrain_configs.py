"""The pre-training configs hold the published hyper-parameters, and every config says truly how it is run."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope

from emae_mm.engine import command
from emae_mm.leaderboard.published import load_published
from emae_mm.models import masking
from emae_mm.registry import MODELS, TRANSFORMS
from emae_mm.suite.plan import load_suite

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
STEPS_PER_EPOCH = 3  # ImageNet's 312 at batch 4096 would only take longer


@dataclass(frozen=True)
class Expected:
    """What the papers and the MAE release say of one run (EMAE sections III and IV; MAE's PRETRAIN.md)."""

    method: str
    arch: str
    epochs: int
    gpus: int
    per_gpu: int
    data: str


def _expected(name: str) -> Expected:
    """From a file's name, which every test holds against the file's content."""
    method, size, gpus, per_gpu, epochs, data = re.fullmatch(
        r"(emae|mae)_vit-(base|large)-p16_(\d+)xb(\d+)-(\d+)e_(.+)", name
    ).groups()
    return Expected(method.upper(), f"ViT-{size[0].upper()}", int(epochs), int(gpus), int(per_gpu), DATA[data])


# the names of published.csv
DATA = {
    "in1k": "ImageNet-1K", "in1k-shards": "ImageNet-1K", "coco": "COCO train2017", "openimages": "OpenImages train",
}  # fmt: skip
RUNS = {  # protocol 1.4, and the runs of MAE that the papers compare with
    "emae_vit-base-p16_8xb512": {
        "in1k": (100, 200, 300, 800, 1600), "in1k-shards": (300,), "coco": (1000, 2000, 4000), "openimages": (100, 800)
    },
    "mae_vit-base-p16_8xb512": {
        "in1k": (100, 200, 300, 800, 1600), "coco": (1000, 2000, 4000), "openimages": (100, 800)
    },
    "emae_vit-large-p16_32xb128": {"in1k": (300, 800)},
    "mae_vit-large-p16_32xb128": {"in1k": (1600,)},
}  # fmt: skip
PROTOCOL = {
    name: _expected(name)
    for run, of_data in RUNS.items()
    for data, of_epochs in of_data.items()
    for name in [f"{run}-{epochs}e_{data}" for epochs in of_epochs]
}
WIDTH_DEPTH_HEADS = {"ViT-B": (768, 12, 12), "ViT-L": (1024, 24, 16)}
BATCH, BASE_LR, WARMUP, WEIGHT_DECAY, BETAS = 4096, 1.5e-4, 40, 0.05, (0.9, 0.95)
MASKINGS = {"EMAE": (masking.ParallelMasking, 4), "MAE": (masking.RandomMasking, 1)}
CONSISTENCY_WEIGHT = {"EMAE": 1.0, "MAE": 0.0}
NUM_PATCHES, NUM_VISIBLE = 196, 49  # 224 x 224 in patches of 16; 75 % hidden


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
    found = {path.stem for method in ("emae", "mae") for path in (CONFIGS / "pretrain").glob(f"{method}_*.py")}
    assert found == set(PROTOCOL)


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_model(name):
    expected, model = PROTOCOL[name], build(read(name))
    encoder, decoder = model.backbone, model.decoder
    assert type(model).__name__ == expected.method
    assert (encoder.embed_dim, encoder.depth, encoder.num_heads) == WIDTH_DEPTH_HEADS[expected.arch]
    assert (encoder.num_patches, encoder.patch_size, encoder.in_chans) == (NUM_PATCHES, 16, 3)
    blocks = decoder.decoder_blocks
    assert (decoder.decoder_embed.out_features, len(blocks), blocks[0].attn.num_heads) == (512, 8, 16)
    assert decoder.decoder_pred.out_features == 16 * 16 * 3
    strategy, parts = MASKINGS[expected.method]
    assert type(model.masking) is strategy and model.masking.num_parts == parts
    groups = model.masking.split(model.masking.draw(2, NUM_PATCHES))
    assert [tuple(ids.shape) for ids in groups] == [(2, parts, NUM_VISIBLE)]
    assert model.norm_pix is True
    assert (model.reconstruction_weight, model.consistency_weight) == (1.0, CONSISTENCY_WEIGHT[expected.method])
    assert model.sc_norm == "overlap"


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_optimiser_and_batch(name):
    expected, config = PROTOCOL[name], read(name)
    model = build(config)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW and "clip_grad" not in config.optim_wrapper
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    groups = {name: group for group in wrapper.optimizer.param_groups for name in group["param_names"]}
    assert groups.keys() == trained.keys() and not {"backbone.pos_embed", "decoder.decoder_pos_embed"} & groups.keys()
    for name_, parameter in trained.items():
        group = groups[name_]
        assert group["lr"] == pytest.approx(BASE_LR * BATCH / 256) == pytest.approx(2.4e-3), name_
        assert group["betas"] == BETAS
        assert group["weight_decay"] == (WEIGHT_DECAY if parameter.ndim > 1 else 0.0), name_
    for token in ("backbone.cls_token", "decoder.mask_token"):
        assert groups[token]["weight_decay"] == WEIGHT_DECAY
    assert f"_{expected.gpus}xb{expected.per_gpu}-{expected.epochs}e_" in name
    assert config.train_dataloader.batch_size == expected.per_gpu
    assert expected.gpus * expected.per_gpu == config.global_batch_size == config.auto_scale_lr.base_batch_size == BATCH
    assert config.train_dataloader.sampler.shuffle
    # 118 287 images are 28.9 batches: dropping the last would train 3 % less
    assert config.train_dataloader.drop_last == (expected.data != "COCO train2017")


def release_lr(step: int, epochs: int) -> float:
    """The MAE release's learning rate (``lr_sched.adjust_learning_rate`` restated, minimum 0)."""
    epoch, peak = step / STEPS_PER_EPOCH, BASE_LR * BATCH / 256
    if epoch < WARMUP:
        return peak * epoch / WARMUP
    return peak * 0.5 * (1 + math.cos(math.pi * (epoch - WARMUP) / (epochs - WARMUP)))


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_learning_rate_follows_the_release(name):
    expected, config = PROTOCOL[name], read(name)
    assert config.train_cfg.max_epochs == config.record.epochs == expected.epochs
    wrapper = build_optim_wrapper(torch.nn.Linear(2, 2), config.optim_wrapper)
    schedulers = [
        # the Runner fills in the same end
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
    wanted = [release_lr(step, expected.epochs) for step in range(len(found))]
    # mmengine's warm-up ends one step earlier, and starts at a millionth: at most a step's worth of the rate, rounded
    assert found == pytest.approx(wanted, abs=2.4e-3 / (WARMUP * STEPS_PER_EPOCH) + 1e-9)
    # after it, the two agree but for rounding
    after = WARMUP * STEPS_PER_EPOCH
    assert found[after] == pytest.approx(2.4e-3, rel=1e-6)
    assert found[after:] == pytest.approx(wanted[after:], rel=1e-6, abs=1e-12)
    halfway = (expected.epochs + WARMUP) * STEPS_PER_EPOCH // 2
    assert found[halfway] == pytest.approx(1.2e-3, rel=0.02) and found[-1] < 1e-3 * 2.4e-3


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_augmentation(name):
    pipeline = read(name).train_dataloader.dataset.pipeline
    load, flip, pack = (TRANSFORMS.build(step) for step in pipeline)
    crop = load.crop
    assert load.on_broken == "skip"
    assert (crop.scale, crop.crop_ratio_range, crop.aspect_ratio_range) == ((224, 224), (0.2, 1.0), (3 / 4, 4 / 3))
    assert (crop.interpolation, crop.backend) == ("bicubic", "pillow")
    assert (flip.prob, flip.direction) == (0.5, "horizontal")
    assert type(pack).__name__ == "PackInputs"
    preprocessor = read(name).model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53] and preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.to_rgb


SMALL = [f"{folder}/{method}_vit-{rest}" for folder, rest in (("demo", "demo_demo"), ("tiny", "tiny64_folder"))
         for method in ("emae", "mae")]  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_small_configs_are_the_full_ones_with_a_small_encoder(name):
    method = Path(name).name.split("_")[0]
    small, full = read(name), read(f"{method}_vit-base-p16_8xb512-300e_in1k")
    models = build(small), build(full)
    for attribute in ("reconstruction_weight", "consistency_weight", "sc_norm"):
        assert getattr(models[0], attribute) == getattr(models[1], attribute)
    # the demonstration's picture needs pixels with their brightness and contrast
    assert models[0].norm_pix == (not name.startswith("demo/"))
    assert type(models[0]) is type(models[1])
    assert vars(models[0].masking) == vars(models[1].masking)
    (ids,) = models[0].masking.split(models[0].masking.draw(1, 64))
    assert models[0].backbone.num_patches == 64 and ids.shape[-1] == 16, "the same share of patches is visible"
    optimisers = dict(small.optim_wrapper.optimizer), dict(full.optim_wrapper.optimizer)
    for one in optimisers:
        one.pop("lr")  # is its own at so short a schedule
    assert optimisers[0] == optimisers[1] and small.optim_wrapper.paramwise_cfg == full.optim_wrapper.paramwise_cfg
    assert small.model.data_preprocessor == full.model.data_preprocessor
    crops = [
        TRANSFORMS.build(small.train_dataloader.dataset.pipeline[1]),
        TRANSFORMS.build(full.train_dataloader.dataset.pipeline[0]).crop,
    ]
    assert type(crops[0]) is type(crops[1]) and vars(crops[0]) == vars(crops[1]) | dict(scale=(64, 64))
    assert small.record.epochs == small.train_cfg.max_epochs


@pytest.mark.parametrize("name", [name for name in SMALL if "/emae_" in name])
def test_small_methods_differ_in_the_method_only(name):
    configs = [read(one).to_dict() for one in (name, name.replace("/emae_", "/mae_"))]
    for config in configs:
        for key in ("type", "num_parts", "reconstruction_weight", "consistency_weight", "sc_norm", "mask_ratio"):
            config["model"].pop(key, None)
        config["record"].pop("method")
    assert configs[0] == configs[1]


DATASET = {
    "in1k": dict(type="emae_mm.ImageFolder", data_prefix="train", with_label=False),
    "in1k-shards": dict(type="emae_mm.TarShards", shards="train"),
    "coco": dict(type="emae_mm.ImageFolder", data_prefix="train2017", with_label=False),
    "openimages": dict(
        type="emae_mm.OpenImages",
        ann_file="train-images-boxable-with-rotation.csv",
        subset="train",
        apply_rotation=True,
    ),
}


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_data_set(name):
    loader, data = read(name).train_dataloader, name.rpartition("_")[2]
    assert {key: value for key, value in loader.dataset.items() if key not in ("pipeline", "data_root")} == DATASET[
        data
    ]
    assert loader.sampler.type == ("emae_mm.ShardSampler" if data == "in1k-shards" else "DefaultSampler")
    assert read(name).record.data == PROTOCOL[name].data


@pytest.mark.parametrize("method", ["emae", "mae"])
def test_coco_with_as_many_steps_as_r_mae(method):
    """The options in the header, applied: 144 000 steps, 12 000 of warm-up; without them 40 epochs of warm-up."""
    name = f"{method}_vit-base-p16_8xb512-4000e_coco"
    config = read(name)
    steps = math.ceil(118_287 / BATCH)
    assert round(4000 * 118_287 / BATCH) == 115_515 and steps * 4000 == 116_000
    options = re.search(r"--cfg-options (.*)", header_of(CONFIGS / "pretrain" / f"{name}.py"))[1]
    config.merge_from_dict({key: int(value) for key, value in (option.split("=") for option in options.split())})
    assert config.train_cfg.max_epochs * steps == pytest.approx(144_000, abs=steps)
    warmup, cosine = config.param_scheduler
    assert warmup.end * steps == pytest.approx(12_000, abs=steps) and cosine.begin == warmup.end


PUBLISHED_TASKS = {
    "ImageNet-1K": ("imagenet-linear", "imagenet-finetune"),
    "COCO train2017": ("coco-vitdet", "ade20k-upernet"),
    "OpenImages train": ("coco-vitdet", "ade20k-upernet"),
}
SAME_AS_MAIN = {"EMAE": "++ self-consistency", "MAE": "baseline"}  # what the ablations call the methods themselves


@pytest.mark.parametrize("name", list(PROTOCOL))
def test_published_result_in_the_header(name):
    expected = PROTOCOL[name]
    header = header_of(CONFIGS / "pretrain" / f"{name}.py")
    assert f"{expected.epochs} epochs on {expected.data}" in header
    key = (expected.method, expected.arch, expected.data, expected.epochs)
    rows = [row for row in load_published() if (row.method, row.arch, row.pretrain_data, row.pretrain_epochs) == key]
    results = [row for row in rows if row.task in PUBLISHED_TASKS[expected.data] and row.value and not row.variant]
    if not results:
        results = [row for row in rows if row.task == "ablation" and row.variant == SAME_AS_MAIN[expected.method]]
    for task, metric in {(row.task, row.metric) for row in results}:
        known = {row.value for row in results if (row.task, row.metric) == (task, metric)}
        assert any(re.search(rf"\b{value}\b", header) for value in known), (task, metric, known)
    if not results:
        assert "no published result" in header or "there is no accuracy" in header


RUNNABLE = sorted(path for path in CONFIGS.rglob("*.py") if not {"_base_", "suites"} & set(path.parts))


def header_of(path: Path) -> str:
    """The comment lines a config begins with."""
    lines = path.read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#") for line in lines[:end])


def is_in_suite(name: str, path: Path) -> bool:
    suite = load_suite(name)
    return any(
        entry["config"] == str(path.relative_to(CONFIGS)) for entry in (suite.pretrain | suite.transfer).values()
    )


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_header_names_the_command(path):
    commands = re.findall(r"^ {3}(.*)", header_of(path).replace("\\\n", " "), re.MULTILINE)
    assert commands, "the header gives a command, indented by three spaces"
    for line in commands:
        if match := re.search(r"emae-mm (demo|suite (\w+))", line):
            assert is_in_suite(match[2] or match[1], path)
            continue
        assert f"configs/{path.relative_to(CONFIGS)}" in line, "its own name"
        (tool,) = re.findall(r"tools/\w+\.(?:py|sh)", line)
        assert (CONFIGS.parent / tool).is_file()
        options = set(re.findall(r"--[\w-]+", line))
        assert options <= set(re.findall(r"--[\w-]+", Path(command.__file__).read_text()))
        if "_in1k" in path.name and tool == "tools/dist_train.sh":
            processes = int(re.search(r"\.py (\d+)", line)[1]) * int((re.search(r"NNODES=(\d+)", line) or [0, 1])[1])
            assert re.search(r"_(\d+)xb", path.name)[1] == str(processes)


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_config_has_what_a_run_needs(path):
    config = Config.fromfile(path)
    assert config.default_scope in {"mmpretrain", "mmdet", "mmseg"}
    assert "emae_mm.registry" in config.custom_imports.imports and not config.custom_imports.allow_failed_imports
    hooks = {name: hook.type for name, hook in config.default_hooks.items()}
    assert hooks["checkpoint"] == "emae_mm.PruningCheckpointHook" and hooks["record"] == "emae_mm.RecordHook"
    assert hooks["finite"] == "emae_mm.NonFiniteLossHook"
    assert "seed" in config.randomness and {"task", "data"} <= config.record.keys()
    if config.record.task == "pretrain":
        assert {"method", "epochs"} <= config.record.keys() and "pretrained" not in config
        assert hooks["export"] == "emae_mm.ExportEncoderHook"
    else:
        assert config.pretrained == "" and config.record.protocol
        assert config.get("test_dataloader") and "test_evaluator" in config
