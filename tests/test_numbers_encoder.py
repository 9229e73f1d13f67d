"""The encoder at full width against timm with the same random weights: features and gradients, plain and windowed."""

from functools import partial

import pytest
import timm
import torch

from emae_mm.models import DenseViT, ViTEncoder

ARCH = dict(embed_dim=768, depth=2, num_heads=12)
LAYER_NORM = partial(torch.nn.LayerNorm, eps=1e-6)  # SAM's model in timm has torch's 1e-5, ViTDet 1e-6


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def compare_gradients(found, expected) -> None:
    """All parameters' gradients agree to float32's rounding, relative to each one's largest entry."""
    assert set(found) == set(expected)
    differences = {name: ((found[name] - g).abs().max() / g.abs().max()).item() for name, g in expected.items()}
    worst = max(differences, key=differences.get)
    assert differences[worst] < 1e-5, worst  # sums over all tokens in another order: some 1e-6


def randomise(model) -> None:
    """Every parameter random at a size that keeps activations of order 1; zeros would hide what they multiply."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim == 2 else 0.2
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1) * 0.5)


@pytest.mark.parametrize("size", [224, 384, (160, 256)], ids=str)
def test_vit_base_features_and_gradients(size):
    """All 12 blocks forwards; gradients with 2 (the others are the same block)."""
    images = torch.randn(1, 3, *((size, size) if isinstance(size, int) else size))
    for depth in (12, 2):
        theirs = timm.create_model("vit_base_patch16_224", num_classes=0, img_size=size, depth=depth).eval()
        ours = ViTEncoder(dict(ARCH, depth=depth), img_size=size, learn_pos_embed=True).eval()
        if depth == 2:
            randomise(theirs)
        else:
            torch.nn.init.normal_(theirs.pos_embed, std=0.5)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        with torch.set_grad_enabled(depth == 2):
            expected, found = theirs.forward_features(images), ours(images)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        if depth == 2:
            weights = torch.randn_like(expected)  # a plain sum of a layer norm's output has next to no gradient
            (expected * weights).sum().backward()
            (found * weights).sum().backward()
            compare_gradients(gradients(ours), gradients(theirs))


def sam_pair(size, depth, blocks_globally, window=14, **sam):
    """timm's SAM ViT and ours with its weights; SAM has no class token, so positions are a grid."""
    theirs = timm.create_model(
        "samvit_base_patch16", img_size=size, depth=depth, window_size=window, global_attn_indexes=blocks_globally,
        norm_layer=LAYER_NORM, neck_chans=0, num_classes=0, **sam,
    ).eval()  # fmt: skip
    randomise(theirs)
    ours = DenseViT(
        dict(ARCH, depth=depth), img_size=size, window_size=window, global_blocks=blocks_globally,
        rel_pos_bias="decomposed", use_cls_token=False, out_indices=range(depth),
    ).eval()  # fmt: skip
    state = {name: value for name, value in theirs.state_dict().items() if not name.startswith("neck.")}
    positions = state["pos_embed"].flatten(1, 2)
    state["pos_embed"] = torch.cat([torch.zeros(1, 1, 768), positions], dim=1)
    ours.load_state_dict(state, strict=True)  # the names are the same
    return ours, theirs


@pytest.mark.parametrize(
    ("size", "window"),
    [((320, 384), 14), ((224, 224), 14), ((448, 448), 14), ((128, 336), 14), ((176, 208), 5)],
    ids=["20x24, padded", "one window", "whole windows", "lower than a window", "5x5 windows on 11x13"],
)
def test_windows_and_decomposed_positions_are_those_of_timms_sam(size, window):
    """One windowed and one global block; outputs and gradients of every parameter, relative positions included."""
    ours, theirs = sam_pair(size, depth=2, blocks_globally=(1,), window=window)
    images = torch.randn(1, 3, *size)
    expected = theirs.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
    found = ours(images)
    for index, (mine, other) in enumerate(zip(found, expected, strict=True)):
        assert mine.shape == (1, 768, size[0] // 16, size[1] // 16)
        # residual streams of size 10: fp32 rounding
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5, msg=lambda text, i=index: f"block {i}: {text}")
    weights = [torch.randn_like(other) for other in expected]
    sum((other * w).sum() for other, w in zip(expected, weights, strict=True)).backward()
    sum((mine * w).sum() for mine, w in zip(found, weights, strict=True)).backward()
    assert all(block.attn.rel_pos_h.grad.abs().max() > 1e-3 for block in ours.blocks)
    mine = gradients(ours)
    mine["pos_embed"] = mine["pos_embed"][:, 1:].reshape(theirs.pos_embed.shape)
    compare_gradients(mine, gradients(theirs))


def test_whole_vitdet_base_is_timms_sam():
    """12 blocks, global ones 2, 5, 8 and 11, windows that need padding; a batch of two."""
    ours, theirs = sam_pair((320, 384), depth=12, blocks_globally=(2, 5, 8, 11))
    images = torch.randn(2, 3, 320, 384)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(images, indices=list(range(12)), intermediates_only=True)
        for mine, other in zip(ours(images), expected, strict=True):
            difference = (mine - other).abs().max()
            assert difference < 5e-6 * other.abs().max()  # fp32 rounding over up to 12 blocks


@pytest.mark.parametrize("size", [(320, 384), (192, 480)], ids=str)
def test_decomposed_positions_at_another_size_are_resized_as_in_timms_sam(size):
    """Models stored for 256 pixels: global embeddings are interpolated, those of windows are not."""
    ours, theirs = sam_pair((256, 256), depth=2, blocks_globally=(1,), window=7)
    images = torch.randn(1, 3, *size)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
        for mine, other in zip(ours(images), expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5)  # fp32 rounding


@pytest.mark.parametrize("size", [(224, 224), (160, 96)], ids=str)
def test_biases_of_every_block_are_those_of_timms_beit(size):
    """UperNet's backbone: a table in every block, with the class token's three entries, and LayerScale."""
    theirs = timm.create_model(
        "beit_base_patch16_224", img_size=size, depth=2, num_classes=0, use_abs_pos_emb=True, init_values=0.1
    ).eval()
    randomise(theirs)
    ours = DenseViT(dict(ARCH), img_size=size, rel_pos_bias="per_block", init_values=0.1, out_indices=(0, 1)).eval()
    ours.load_state_dict(from_beit(theirs.state_dict()), strict=True)
    images = torch.randn(1, 3, *size)
    expected = theirs.forward_intermediates(images, indices=[0, 1], norm=False, intermediates_only=True)
    found = ours(images)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=2e-5)  # fp32 rounding
    weights = [torch.randn_like(other) for other in expected]
    sum((other * w).sum() for other, w in zip(expected, weights, strict=True)).backward()
    sum((mine * w).sum() for mine, w in zip(found, weights, strict=True)).backward()
    mine = gradients(ours)
    for index in range(2):
        q, _, v = mine.pop(f"blocks.{index}.attn.qkv.bias").chunk(3)  # BEiT's keys have no bias
        mine |= {f"blocks.{index}.attn.qkv.bias.{name}": part for name, part in (("q", q), ("v", v))}
    wanted = {key: value for key, value in from_beit(gradients(theirs)).items() if not key.endswith("qkv.bias")}
    for index in range(2):
        wanted |= {
            f"blocks.{index}.attn.qkv.bias.{name}": theirs.blocks[index].attn.get_parameter(f"{name}_bias").grad
            for name in ("q", "v")
        }
    compare_gradients(mine, wanted)


def from_beit(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of timm's BEiT as ours; the bias of queries, keys and values in one."""
    renamed = {}
    for name, value in tensors.items():
        block, _, part = name.rpartition(".attn.")
        if part == "relative_position_bias_table":
            renamed[f"rel_pos.{block.split('.')[1]}.table"] = value
        elif part == "q_bias":
            parts = (value, torch.zeros_like(value), tensors[f"{block}.attn.v_bias"])
            renamed[f"{block}.attn.qkv.bias"] = torch.cat(parts)
        elif part not in ("v_bias", "k_bias", "relative_position_index") and not name.startswith(("norm.", "fc_norm")):
            renamed[name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    return renamed
