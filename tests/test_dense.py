"""The dense backbone against timm and against plain float64 loops; the pyramid's shapes."""

import math

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from emae_mm.checkpoints import load_encoder
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.models import DenseViT, MultiScaleFromStride16, ViTEncoder
from emae_mm.models.attention import GridAttention
from emae_mm.models.relative_position import RelativePositionBias

ARCH = dict(embed_dim=32, depth=4, num_heads=4)
TAPS = (0, 1, 2, 3)


def small(**options) -> DenseViT:
    options = dict(arch=ARCH, img_size=64, patch_size=8, out_indices=TAPS) | options
    return DenseViT(**options).eval()


def randomise_tables(model: DenseViT) -> DenseViT:
    for name, parameter in model.named_parameters():
        if name.startswith("rel_pos."):
            torch.nn.init.normal_(parameter)
    return model


# --- the plain path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(224, 224), (384, 384), (224, 320)])
def test_plain_maps_are_those_of_timm(size):
    reference = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=size, depth=4).eval()
    stored = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=4)
    grid = [size[0] // 16, size[1] // 16]
    weights = stored.state_dict()
    reference.load_state_dict(weights | {"pos_embed": resample_abs_pos_embed(weights["pos_embed"], grid, [14, 14])})

    model = DenseViT(arch=dict(embed_dim=192, depth=4, num_heads=3), img_size=224, out_indices=TAPS).eval()
    model.load_state_dict({name: w for name, w in weights.items() if not name.startswith("norm.")})
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = reference.forward_intermediates(images, indices=list(TAPS), norm=False, intermediates_only=True)
        maps = model(images)
    for ours, theirs in zip(maps, expected, strict=True):
        assert ours.shape == (2, 192, *grid)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # fp32 rounding over 4 blocks


def test_fresh_tables_and_unit_layer_scale_change_nothing():
    plain, full = small(), small(rel_pos_bias="per_block", init_values=1.0)
    full.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(full(images), plain(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # another SDPA kernel with a mask: fp32 rounding


def test_images_are_padded_to_whole_patches_with_zeros():
    model = small(rel_pos_bias="per_block")
    images = torch.randn(1, 3, 60, 45)
    padded = torch.zeros(1, 3, 64, 48)
    padded[..., :60, :45] = images
    maps = model(images)
    assert maps[0].shape == (1, 32, 8, 6)
    for ours, theirs in zip(maps, model(padded), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)  # the same computation


# --- relative positions --------------------------------------------------------------------------------------------


def loop_bias(table, grid, shown=None, cls_token=False):
    """BEiT's layout written as a loop: rows of the table run over (vertical, horizontal) offsets of query minus key."""
    height, width = grid
    shown = shown or grid
    cells = [(r, c) for r in range(shown[0]) for c in range(shown[1])]
    count = (2 * height - 1) * (2 * width - 1)
    out = torch.zeros(table.shape[1], len(cells) + cls_token, len(cells) + cls_token, dtype=table.dtype)
    for i, (r, c) in enumerate(cells):
        for j, (r2, c2) in enumerate(cells):
            row = (r - r2 + height - 1) * (2 * width - 1) + (c - c2 + width - 1)
            out[:, i + cls_token, j + cls_token] = table[row]
    if cls_token:
        out[:, 0, 1:] = table[count][:, None]
        out[:, 1:, 0] = table[count + 1][:, None]
        out[:, 0, 0] = table[count + 2]
    return out


@pytest.mark.parametrize("cls_token", [False, True])
def test_table_index_against_a_loop(cls_token):
    bias = RelativePositionBias((3, 4), num_heads=2, cls_token=cls_token)
    assert bias.table.abs().max() == 0
    torch.nn.init.normal_(bias.table)
    expected = loop_bias(bias.table.detach(), (3, 4), cls_token=cls_token)
    torch.testing.assert_close(bias((3, 4))[0], expected, rtol=0, atol=0)  # gathered, not computed


def test_table_of_another_grid():
    whole = RelativePositionBias((4, 4), num_heads=1, cls_token=True)
    with torch.no_grad():
        whole.table.copy_(torch.full((7 * 7 + 3, 1), 2.5))
        whole.table[-3:] = torch.tensor([[1.0], [2.0], [3.0]])
    bias = whole((6, 3))[0, 0]
    assert bias.shape == (19, 19)
    torch.testing.assert_close(bias[1:, 1:], torch.full((18, 18), 2.5))  # a constant stays one under resampling
    assert bias[0, 0] == 3 and bias[0, 1] == 1 and bias[1, 0] == 2

    window = RelativePositionBias((4, 4), num_heads=2, resample=False)
    torch.nn.init.normal_(window.table)
    expected = loop_bias(window.table.detach(), (4, 4), shown=(4, 2))
    torch.testing.assert_close(window((4, 2))[0], expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="cannot serve"):
        window((5, 4))


# --- windows -------------------------------------------------------------------------------------------------------


def loop_attention(attention, tokens, heads, bias):
    """Multi-head attention of one window in float64 by loops over heads and queries; tokens (n, D)."""
    qkv = tokens @ attention.qkv.weight.double().T + attention.qkv.bias.double()
    q, k, v = (part.reshape(len(tokens), heads, -1) for part in qkv.chunk(3, dim=1))
    out = torch.zeros_like(q)
    for head in range(heads):
        for i in range(len(tokens)):
            logits = torch.stack([q[i, head] @ k[j, head] / math.sqrt(q.shape[2]) for j in range(len(tokens))])
            weights = (logits + bias[head, i]).softmax(0)
            out[i, head] = (weights[:, None] * v[:, head]).sum(0)
    return out.reshape(len(tokens), -1) @ attention.proj.weight.double().T + attention.proj.bias.double()


@pytest.mark.parametrize("grid", [(6, 4), (5, 7)], ids=["whole windows", "padded windows"])
def test_windows_against_a_float64_loop(grid):
    attention = GridAttention(16, num_heads=2, qkv_bias=True)
    torch.nn.init.normal_(attention.qkv.bias)  # padding tokens then have keys that matter
    window, bias = (3, 2), torch.randn(1, 2, 6, 6)
    tokens = torch.randn(2, grid[0] * grid[1], 16)
    ours = attention(tokens, grid, window, bias).detach()
    expected = torch.zeros(2, *grid, 16, dtype=torch.float64)
    for b in range(2):
        field = tokens[b].double().reshape(*grid, 16)
        for top in range(0, grid[0], 3):
            for left in range(0, grid[1], 2):
                cells = [(top + r, left + c) for r in range(3) for c in range(2)]
                inside = [cell[0] < grid[0] and cell[1] < grid[1] for cell in cells]
                zero = torch.zeros(16, dtype=torch.float64)
                inputs = [field[cell] if ok else zero for cell, ok in zip(cells, inside, strict=True)]
                outputs = loop_attention(attention, torch.stack(inputs), 2, bias[0].double())
                for cell, ok, output in zip(cells, inside, outputs, strict=True):
                    if ok:
                        expected[b][cell] = output
    torch.testing.assert_close(ours.double(), expected.flatten(1, 2), rtol=1e-5, atol=1e-5)  # fp32 against float64


def test_a_window_as_large_as_the_image_is_full_attention():
    full = small(use_cls_token=False)
    windowed = small(use_cls_token=False, window_size=16)
    windowed.load_state_dict(full.state_dict())
    images = torch.randn(2, 3, 64, 48)
    for ours, theirs in zip(windowed(images), full(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)  # the same computation


def test_windows_do_not_see_each_other_and_global_blocks_do():
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[..., 32:, 32:] += 1.0  # the last of four windows
    model = small(window_size=4, global_blocks=(3,), use_cls_token=False, rel_pos_bias="shared")
    before, after = model(images), model(changed)
    for block, reaches in [(2, False), (3, True)]:
        difference = (after[block] - before[block])[..., :4, :4].abs().max()
        assert (difference > 1e-3) == reaches


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        dict(rel_pos_bias="per_block", init_values=1.0),
        dict(rel_pos_bias="shared", use_cls_token=False, window_size=4, global_blocks=(1, 3)),
    ],
    ids=["UperNet", "Mask R-CNN"],
)
def test_every_parameter_learns_and_checkpointing_changes_nothing(options):
    images = torch.randn(2, 3, 64, 64)
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(1)
        model = randomise_tables(small(with_cp=with_cp, **options)).train()
        sum(x.square().mean() for x in model(images)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-7)  # summation order


def test_bfloat16_autocast_with_biases():
    model = randomise_tables(small(rel_pos_bias="per_block"))
    images = torch.randn(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = model(images)[-1]
    full = model(images)[-1]
    assert (reduced - full).norm() / full.norm() < 0.03  # bf16 keeps 8 bits: about 0.4 % a rounding, several blocks


# --- checkpoints, layer depths, options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        dict(rel_pos_bias="per_block", init_values=1.0),
        dict(rel_pos_bias="shared", use_cls_token=False, window_size=4, global_blocks=(1, 3)),
    ],
    ids=["UperNet", "Mask R-CNN"],
)
def test_a_pretrained_encoder_fits(tmp_path, options):
    encoder = ViTEncoder(arch=ARCH, img_size=64, patch_size=8)
    path = tmp_path / "encoder.pth"
    torch.save({"model": encoder.state_dict()}, path)
    model = small(img_size=96, **options)
    report = load_encoder(model, path)
    assert report.resampled == ["pos_embed"]
    torch.testing.assert_close(model.state_dict()["blocks.2.attn.qkv.weight"], encoder.blocks[2].attn.qkv.weight)
    assert all(name.startswith("rel_pos.") or ".ls" in name for name in report.fresh)
    assert {name.split(".")[0] for name in report.unused} <= {"norm", "cls_token"}
    torch.save({"model": encoder.state_dict() | {"surprise": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="surprise"):
        load_encoder(model, path)


def test_parameter_names():
    plain = set(dict(ViTEncoder(arch=ARCH, img_size=64, patch_size=8).named_parameters()))
    windowed = small(rel_pos_bias="shared", use_cls_token=False, window_size=4, global_blocks=(3,))
    shared = set(dict(windowed.named_parameters()))
    assert plain - shared == {"norm.weight", "norm.bias", "cls_token"}
    assert shared - plain == {"rel_pos.window.table", "rel_pos.global.table"}
    per_block = set(dict(small(rel_pos_bias="per_block").named_parameters()))
    assert plain - per_block == {"norm.weight", "norm.bias"}
    assert per_block - plain == {f"rel_pos.{i}.table" for i in range(4)}
    assert set(small(rel_pos_bias="per_block").state_dict()) == per_block  # the index is no part of a checkpoint


def test_layer_depth():
    model = small(rel_pos_bias="per_block")
    depths = {name: model.get_layer_depth(name) for name, _ in model.named_parameters()}
    assert depths["cls_token"] == depths["pos_embed"] == depths["patch_embed.proj.weight"] == (0, 6)
    assert depths["blocks.2.mlp.fc1.bias"] == depths["rel_pos.2.table"] == (3, 6)
    assert model.get_layer_depth("rel_pos.global.table") == (5, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(out_indices=(0, 1, 2, 4)), "4 blocks"),
        (dict(out_indices=(1, 0)), "ascending"),
        (dict(rel_pos_bias="swin"), "swin"),
        (dict(global_blocks=(1,)), "window_size"),
        (dict(window_size=4), "class token"),
    ],
)
def test_contradictory_options_are_errors(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)


# --- the pyramid ---------------------------------------------------------------------------------------------------


def test_pyramid():
    pyramid = MultiScaleFromStride16(8, norm_cfg=dict(type="GN", num_groups=4))
    maps = [torch.randn(2, 8, 6, 5, requires_grad=True) for _ in range(4)]
    scaled = pyramid(maps)
    assert [tuple(x.shape[2:]) for x in scaled] == [(24, 20), (12, 10), (6, 5), (3, 2)]
    assert scaled[2] is maps[2]
    torch.testing.assert_close(scaled[3][0, 0, 1, 1], maps[3][0, 0, 2:4, 2:4].max())
    sum(x.sum() for x in scaled).backward()
    assert all(p.grad is not None for p in [*pyramid.parameters(), *maps])
    with pytest.raises(ConfigError, match="3 feature maps"):
        pyramid(maps[:3])
