"""What a training costs: FLOPs against closed forms, memory against real steps, schedules against known numbers."""

import io
import json
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from timm import create_model

from emae_mm.cost import LiveMemory, Machine, count_flops, estimate_cost
from emae_mm.cost.command import cost_command
from emae_mm.cost.memory import as_on_gpu, peak_of_step, states_per_parameter
from emae_mm.errors import ConfigError, UserError
from emae_mm.models.algorithms.masked_autoencoder import EMAE, MAE

EMAE_B, MAE_B = "pretrain/emae_vit-base-p16_8xb512-300e_in1k", "pretrain/mae_vit-base-p16_8xb512-300e_in1k"
SMALL = dict(backbone=dict(arch=dict(embed_dim=48, depth=3, num_heads=4), img_size=64, patch_size=16))
SMALL_DECODER = dict(decoder_dim=32, depth=2, num_heads=4)


def block_flops(queries: int, keys: int, width: int) -> int:
    """A transformer block whose output is wanted for some tokens only: projections, attention, MLP four times wide."""
    projections = 2 * width * width * (queries + 2 * keys + queries)
    return projections + 2 * 2 * queries * keys * width + 2 * 2 * queries * width * 4 * width


def encoder_flops(sequences: int, tokens: int, width: int, depth: int) -> int:
    return sequences * depth * block_flops(tokens, tokens, width)


def decoder_flops(batch: int, parts: int, visible: int, hidden: int, width: int, dim: int, depth: int, pixels: int):
    """As the decoder's docstring says: the first block projects mask tokens once per position, not per part and image;
    the last one asks for hidden patches only.
    """
    seen, tokens, positions = 1 + visible, 1 + visible + hidden, visible + hidden
    sequences = batch * parts
    first = sequences * (block_flops(tokens, tokens, dim) - 2 * 3 * dim * dim * hidden) + 2 * 3 * dim * dim * positions
    middle = sequences * (depth - 2) * block_flops(tokens, tokens, dim)
    last = sequences * block_flops(hidden, tokens, dim)
    return first + middle + last + sequences * (2 * seen * width * dim + 2 * hidden * dim * pixels)


@pytest.mark.parametrize(("kind", "parts"), [("EMAE", 4), ("EMAE", 7), ("MAE", 1)])
def test_flops_are_those_of_the_closed_form(kind, parts):
    batch, patches, width = 3, 196, 768
    with torch.device("meta"):
        model = EMAE(backbone=dict(arch="base"), num_parts=parts) if kind == "EMAE" else MAE(backbone=dict(arch="base"))
        images = torch.empty(batch, 3, 224, 224)
    flops = count_flops(lambda: model.losses(images, model.draw(images)), model)
    visible = patches // parts if kind == "EMAE" else 49
    hidden = patches - visible
    embed = batch * 2 * patches * width * 768
    encoder = encoder_flops(batch * parts, 1 + visible, width, 12)
    decoder = decoder_flops(batch, parts, visible, hidden, width, 512, 8, 768)
    assert flops.forward == embed + encoder + decoder
    # The backward pass has twice the forward's products, but no gradient is asked of the images.
    assert flops.of("backbone.patch_embed") == 2 * embed
    assert flops.of("backbone") == 2 * embed + 3 * encoder
    assert flops.of("decoder") == 3 * decoder
    assert flops.total == flops.of("backbone") + flops.of("decoder")


def test_attention_and_a_plain_vit_are_counted_as_published():
    query = torch.empty(2, 4, 10, 16, device="meta")
    flops = count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(query, query, query).sum())
    assert flops.forward == flops.total == 2 * (2 * 2 * 4 * 10 * 10 * 16)
    with torch.device("meta"):
        model = create_model("vit_base_patch16_224").eval()
        image = torch.empty(1, 3, 224, 224)
    with torch.no_grad():
        counted = count_flops(lambda: model(image).sum()).forward
    # The ViT-B/16 row of DeiT's and timm's tables: 17.6 G multiply-additions at three digits.
    assert counted / 2e9 == pytest.approx(17.6, abs=0.05)


def test_a_mapping_of_losses_is_added_up_and_only_losses_are():
    weight = torch.nn.Parameter(torch.empty(4, 4, device="meta"))
    images = torch.empty(2, 4, device="meta")
    product = 2 * 2 * 4 * 4

    def step():
        value = (images @ weight).sum()
        return {"loss_a": value, "top1": value.detach()}

    assert (count_flops(step).forward, count_flops(step).backward) == (product, product)


def saved_bytes(step) -> dict[int, int]:
    """Bytes of what autograd keeps for the backward pass by place in memory, by torch's own hooks."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step()
    assert loss.requires_grad
    return storages


def small_model(device: str, parts_per_pass: int | None = None) -> EMAE:
    with torch.device(device):
        return EMAE(**SMALL, decoder=SMALL_DECODER, num_parts=4, parts_per_pass=parts_per_pass)


def total_loss(model, images):
    return lambda: sum(model.losses(images, model.draw(images)).values())


def test_live_memory_is_what_tensors_take():
    with LiveMemory() as live:
        first = torch.empty(1000)
        view = first.view(10, 100)
        kept = view + 1
        assert live.now == live.peak == 8000
        del first
        assert live.now == 8000
        del view
        assert (live.now, live.peak) == (kept.nbytes, 8000)


def test_after_the_forward_pass_what_autograd_saved_is_what_lives():
    model, images = small_model("cpu"), torch.randn(4, 3, 64, 64)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers(), images]}
    saved = sum(size for pointer, size in saved_bytes(total_loss(model, images)).items() if pointer not in own)
    live = LiveMemory()
    live.ignore([*model.parameters(), *model.buffers(), images])
    with live:
        loss = total_loss(model, images)()
    # Beyond what is saved only scalars live on: the loss and its summands.
    assert saved <= live.now <= saved + 64
    assert loss.requires_grad


@pytest.mark.parametrize("parts_per_pass", [None, 2, 1])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_estimate_is_a_real_steps_peak(parts_per_pass, dtype):
    images = torch.randn(16, 3, 64, 64)
    model = small_model("cpu", parts_per_pass)

    def real_step():
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            return total_loss(model, images)()

    real = peak_of_step(model, real_step, [images])
    meta, meta_images = small_model("meta", parts_per_pass), images.to("meta")
    with as_on_gpu(dtype):
        estimate = peak_of_step(meta, total_loss(meta, meta_images), [meta_images])
    # A CPU's kernels keep other statistics than a GPU's, and loss and attention are cut otherwise.
    assert estimate == pytest.approx(real, rel=0.1)


def test_memory_grows_with_the_batch_and_shrinks_with_parts_per_pass():
    def estimate(batch, parts_per_pass=None):
        model, images = small_model("meta", parts_per_pass), torch.empty(batch, 3, 64, 64, device="meta")
        with as_on_gpu(torch.bfloat16):
            return peak_of_step(model, total_loss(model, images), [images])

    once, twice, thrice = (estimate(batch) for batch in (16, 32, 48))
    assert once < twice < thrice
    assert thrice - twice == pytest.approx(twice - once, rel=1e-3)
    # so small a model that the losses, which see all parts, are most of it
    assert estimate(32, 1) <= estimate(32, 2) < 0.8 * twice


def test_optimizer_states():
    assert states_per_parameter(dict(type="AdamW", lr=1e-3)) == 2
    assert states_per_parameter(dict(type="SGD", lr=1e-3, momentum=0.9)) == 1
    assert states_per_parameter(dict(type="emae_mm.LARS", lr=1e-3, momentum=0.9)) == 1


def test_cost_of_emae_base():
    cost = estimate_cost(EMAE_B, Machine(gpus=16))
    assert (cost.parameters.encoder, cost.parameters.total) == (85_798_656, 111_907_840)  # the MAE release's counts
    assert cost.parameters.total - cost.parameters.trainable == 197 * (768 + 512)  # fixed positions
    assert (cost.tokens.parts, cost.tokens.encoder, cost.tokens.decoder) == (4, 200, 788)
    assert (cost.schedule.batch, cost.schedule.steps_per_epoch, cost.schedule.steps) == (256, 312, 93_600)
    assert cost.schedule.images_seen == 93_600 * 4096
    assert cost.memory.optimizer == 8 * cost.parameters.trainable == cost.memory.gradients
    expected = cost.flops.total * cost.schedule.images_seen / (16 * 0.35 * 312e12) / 3600
    assert cost.hours == pytest.approx(expected)


def shallow() -> dict:
    """Options for full-size images and batches, but fewer blocks: a second instead of ten. mmengine changes them."""
    arch = dict(_delete_=True, embed_dim=384, depth=2, num_heads=6)
    return {"model.backbone.arch": arch, "model.decoder.depth": 2}


def test_recomputation_is_one_more_forward_pass_and_saves_memory():
    plain = estimate_cost(EMAE_B, cfg_options=shallow())
    for options in (
        {"model.parts_per_pass": 1},
        {"activation_checkpointing": ["decoder", "backbone.blocks.0", "backbone.blocks.1"]},
    ):
        saving = estimate_cost(EMAE_B, cfg_options=shallow() | options)
        # All but the patch embedding (1.1 %) and the last product (4.4 % here), whose result no gradient reads.
        assert 0.94 * plain.flops.forward < saving.flops.recomputed <= plain.flops.forward
        assert saving.flops.encoder == plain.flops.encoder
        assert saving.memory.activations < plain.memory.activations
        assert saving.hours > plain.hours


def test_other_methods_beside_mae():
    mae = estimate_cost(MAE_B, cfg_options=shallow())
    teacher = estimate_cost("pretrain/rc-mae_vit-base-p16_8xb256-800e_in1k", cfg_options=shallow())
    assert teacher.flops.forward == pytest.approx(2 * mae.flops.forward, rel=0.01)
    # equal but for what a smaller batch shares
    assert teacher.flops.backward == pytest.approx(mae.flops.backward, rel=0.01)
    assert teacher.parameters.total == 2 * mae.parameters.total
    assert teacher.parameters.trainable == mae.parameters.trainable
    views = estimate_cost("pretrain/multi-view-mae_vit-base-p16_16xb256-800e_in1k", cfg_options=shallow())
    assert (views.tokens.parts, views.tokens.encoder, views.tokens.decoder) == (2, 2 * 40, 2 * 197)
    assert views.flops.patch_embedding == 2 * mae.flops.patch_embedding


def test_steps_on_other_data_and_processes():
    coco = estimate_cost("pretrain/emae_vit-base-p16_8xb512-4000e_coco").schedule
    assert (coco.images, coco.steps_per_epoch, coco.steps) == (118_287, 29, 116_000)
    assert coco.images_seen == pytest.approx(4000 * 118_287, rel=1e-3)  # the last batch is filled up
    one = estimate_cost("pretrain/demo/mae_vit-demo_demo", Machine(gpus=1), images=1000)
    assert one.schedule.accumulated * one.schedule.batch == one.schedule.global_batch
    assert estimate_cost("pretrain/mae_vit-base-p16_8xb512-100e_openimages").schedule.exact is False


@pytest.mark.parametrize(
    ("config", "arguments", "named"),
    [
        ("pretrain/demo/mae_vit-demo_demo", {}, "--images"),
        ("pretrain/cae_vit-base-p16_8xb256-300e_in1k", {}, "CAE"),
        ("segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512", {}, "EncoderDecoder"),
        ("classification/knn_vit-base-p16_in1k", {}, "trains nothing"),
        (MAE_B, dict(machine=Machine(gpus=7)), "7 processes"),
        (MAE_B, dict(cfg_options={"activation_checkpointing": ["no_such"]}), "no_such"),
    ],
)
def test_what_cannot_be_counted_is_one_error(config, arguments, named):
    with pytest.raises(ConfigError, match=named) as raised:
        estimate_cost(config, **arguments)
    assert raised.value.fix


def test_rates():
    for wrong in (dict(device="abacus"), dict(utilisation=0), dict(utilisation=1.5), dict(gpus=0), dict(tflops=-1)):
        with pytest.raises(UserError):
            Machine(**wrong)
    assert Machine(images_per_second=1000).hours(3_600_000, 1e9, half=True) == pytest.approx(1.0)
    assert Machine(gpus=2, tflops=50).hours(3600, 1e14, half=True) == pytest.approx(1.0)
    assert Machine(device="V100").sustained(half=False) < Machine(device="V100").sustained(half=True)


def test_table1_beside_the_published_hours(tmp_path):
    out = io.StringIO()
    cost_command(None, Machine(), table1=True, json_file=tmp_path / "t.json", console=Console(file=out, width=220))
    numbers = json.loads((tmp_path / "t.json").read_text())
    mae, supervised, emae = numbers["rows"]
    assert [row["hours"] for row in numbers["rows"]] == [180.76, 23.83, 23.75]
    # 4 times 49 visible patches cost the encoder 4 times one; the patch embedding is shared.
    assert 3.95 < emae["encoder"] / mae["encoder"] < 4
    assert 3.95 < emae["flops"] / mae["flops"] < 4.02
    assert 0.49 < emae["whole_run"] / mae["whole_run"] < 0.51
    tokens_ratio = encoder_flops(1, 197, 1024, 24) / encoder_flops(1, 50, 1024, 24)
    assert supervised["encoder"] / mae["encoder"] == pytest.approx(tokens_ratio, rel=0.01)
    assert "180.76" in out.getvalue() and "7.61" in out.getvalue() and "speed-up" in numbers["explanation"]


def test_the_command_prints_and_writes(tmp_path):
    out, file = io.StringIO(), tmp_path / "cost.json"
    cost_command(
        "pretrain/tiny/emae_vit-tiny64_folder", Machine(gpus=1), 500, ["model.parts_per_pass=1"],
        json_file=file, console=Console(file=out, width=160),
    )  # fmt: skip
    numbers = json.loads(file.read_text())
    assert numbers["flops"]["recomputed"] > 0 and numbers["memory"]["total"] > numbers["memory"]["activations"]
    for word in ("encoder", "FLOPs of an image", "GiB", "estimated from FLOPs", "data loading left out"):
        assert word in out.getvalue()
    for wrong in (dict(config=None), dict(config=MAE_B, table1=True), dict(config=MAE_B, options=["nonsense"])):
        with pytest.raises(ConfigError):
            cost_command(machine=Machine(), console=Console(file=out), **wrong)


def test_the_command_line_says_what_is_wrong():
    result = subprocess.run(
        [sys.executable, "-m", "emae_mm.cli", "cost", MAE_B, "--device", "abacus"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 2 and "abacus" in result.stderr and "Traceback" not in result.stderr
