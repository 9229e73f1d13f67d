"""Positions of another grid: absolute ones against timm's resampling, relative ones against loops of interpolation."""

import math

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn

from emae_mm.checkpoints import load_encoder
from emae_mm.models import DenseViT, ViTEncoder
from emae_mm.models.attention import decomposed_table
from emae_mm.models.relative_position import RelativePositionBias

ARCH = dict(embed_dim=16, depth=1, num_heads=2)
PATCH = 4


# --- absolute positions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [(14, 14), (10, 16)], ids=str)
@pytest.mark.parametrize("new", [(24, 24), (7, 7), (10, 16), (64, 64), (31, 5)], ids=str)
def test_absolute_positions_on_the_fly(old, new):
    encoder = ViTEncoder(arch=ARCH, img_size=[PATCH * side for side in old], patch_size=PATCH)
    torch.nn.init.normal_(encoder.pos_embed)
    expected = resample_abs_pos_embed(encoder.pos_embed, list(new), list(old), num_prefix_tokens=1)
    found = encoder.positions(new)
    assert found.shape == (1, 1 + math.prod(new), 16)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)  # the same operation
    torch.testing.assert_close(found[:, 0], encoder.pos_embed[:, 0], rtol=0, atol=0)  # the class token's is kept
    images = torch.randn(1, 3, *(PATCH * side for side in new))
    torch.testing.assert_close(encoder.embed(images), encoder.patch_embed(images) + expected[:, 1:], rtol=0, atol=0)


@pytest.mark.parametrize("size", [384, (160, 256), 96])
def test_a_checkpoint_of_another_size_is_resampled_as_timm_does_it(size, tmp_path):
    """timm's own loading of its 224-pixel weights into a model of another size is the reference."""
    small = dict(embed_dim=48, depth=2, num_heads=3, num_classes=0)
    stored = timm.create_model("vit_base_patch16_224", **small)
    torch.nn.init.normal_(stored.pos_embed)
    torch.save(stored.state_dict(), tmp_path / "timm.pth")
    theirs = timm.create_model("vit_base_patch16_224", img_size=size, **small)
    theirs.load_state_dict(checkpoint_filter_fn(stored.state_dict(), theirs))
    arch = dict(embed_dim=48, depth=2, num_heads=3)
    images = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    for ours in (ViTEncoder(arch, img_size=size), DenseViT(arch, img_size=size, out_indices=(1,))):
        report = load_encoder(ours, tmp_path / "timm.pth")
        assert report.resampled == ["pos_embed"]
        torch.testing.assert_close(ours.pos_embed, theirs.pos_embed, rtol=0, atol=0)
    encoder = ViTEncoder(arch, img_size=size).eval()
    load_encoder(encoder, tmp_path / "timm.pth")
    with torch.inference_mode():
        # fp32 rounding over 2 blocks
        torch.testing.assert_close(encoder(images), theirs.eval().forward_features(images), rtol=1e-5, atol=1e-5)


# --- relative positions --------------------------------------------------------------------------------------------


def cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, which torch and OpenCV take."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resized(values: np.ndarray, count: int, reach: int, kernel) -> np.ndarray:
    """Along the first axis to ``count`` values; pixel centres are aligned, ends repeated; one value at a time."""
    out = np.zeros((count, *values.shape[1:]))
    for place in range(count):
        centre = (place + 0.5) * len(values) / count - 0.5
        for index in range(math.floor(centre) - reach + 1, math.floor(centre) + reach + 1):
            out[place] += kernel(centre - index) * values[min(max(index, 0), len(values) - 1)]
    return out


@pytest.mark.parametrize("cls_token", [False, True])
@pytest.mark.parametrize("new", [(6, 6), (3, 7), (9, 2)], ids=str)
def test_bias_tables_are_resized_bicubically(new, cls_token):
    old, heads = (4, 5), 3
    bias = RelativePositionBias(old, heads, cls_token=cls_token)
    torch.nn.init.normal_(bias.table)
    table = bias.table.detach().double().numpy()
    rows, columns = 2 * old[0] - 1, 2 * old[1] - 1
    plane = table[: rows * columns].reshape(rows, columns, heads)
    plane = resized(plane, 2 * new[0] - 1, 2, cubic)
    plane = resized(plane.swapaxes(0, 1), 2 * new[1] - 1, 2, cubic).swapaxes(0, 1)
    found = bias(new)[0].detach().numpy()
    cells = [(row, column) for row in range(new[0]) for column in range(new[1])]
    for i, (row, column) in enumerate(cells):
        for j, (other_row, other_column) in enumerate(cells):
            expected = plane[row - other_row + new[0] - 1, column - other_column + new[1] - 1]
            # float32 weights of 16 values
            np.testing.assert_allclose(found[:, i + cls_token, j + cls_token], expected, rtol=0, atol=2e-6)
    if cls_token:  # kept as they are
        np.testing.assert_array_equal(found[:, 0, 1:], table[-3][:, None].repeat(len(cells), 1).astype(np.float32))
        np.testing.assert_array_equal(found[:, 1:, 0], table[-2][:, None].repeat(len(cells), 1).astype(np.float32))
        np.testing.assert_array_equal(found[:, 0, 0], table[-1].astype(np.float32))


@pytest.mark.parametrize("shared", ["per_block", "shared"])
def test_a_backbone_at_another_size_uses_the_resized_tables(shared):
    """Replacing each table by its resized one, stored for the other grid, changes nothing."""
    options = dict(
        arch=dict(ARCH, depth=2), patch_size=PATCH, rel_pos_bias=shared, use_cls_token=False, out_indices=(0, 1)
    )
    model = DenseViT(img_size=(16, 20), **options).eval()
    for table in model.rel_pos.values():
        torch.nn.init.normal_(table.table)
    other = DenseViT(img_size=(24, 12), **options).eval()
    state = model.state_dict() | {"pos_embed": model.positions((6, 3))}
    for name, table in model.rel_pos.items():
        plane = table.table.detach().double().numpy().reshape(7, 9, -1)
        plane = resized(resized(plane, 11, 2, cubic).swapaxes(0, 1), 5, 2, cubic).swapaxes(0, 1)
        state[f"rel_pos.{name}.table"] = torch.tensor(plane.reshape(11 * 5, -1), dtype=torch.float32)
    other.load_state_dict(state)
    images = torch.randn(1, 3, 24, 12)
    for ours, theirs in zip(model(images), other(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)  # tables rounded at another point


def linear(distance: float) -> float:
    return max(0.0, 1 - abs(distance))


@pytest.mark.parametrize(("stored", "keys", "queries"), [(14, 14, 14), (14, 24, 24), (20, 7, 7), (9, 13, 5)])
def test_decomposed_positions_are_resized_linearly(stored, keys, queries):
    table = torch.randn(2 * stored - 1, 6)
    rows = resized(table.double().numpy(), 2 * keys - 1, 1, linear)
    found = decomposed_table(table, queries, keys)
    assert found.shape == (queries, keys, 6)
    for i in range(queries):
        for j in range(keys):
            # float32 interpolation between two values
            np.testing.assert_allclose(found[i, j].numpy(), rows[i - j + keys - 1], rtol=0, atol=1e-5)
