"""MAE and EMAE against independent references: transformers' ViTMAE, and a float64 loop over parts and pairs."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from emae_mm.checkpoints import load_pretraining
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.models.algorithms import EMAE, MAE, MaskedAutoencoder, forward_parts

ARCH = dict(embed_dim=48, depth=2, num_heads=3)
DECODER = dict(decoder_dim=32, depth=2, num_heads=4)


def tiny(cls, img_size=112, dtype=torch.float64, **kwargs):
    backbone = dict(arch=ARCH, img_size=img_size, patch_size=8)
    return cls(backbone=backbone, decoder=DECODER, **kwargs).to(dtype)


def attention_block(x, block):
    """A pre-norm transformer block written out, sharing only the weights."""
    heads, dim = block.attn.num_heads, x.shape[-1]
    h = F.layer_norm(x, (dim,), block.norm1.weight, block.norm1.bias, 1e-6)
    q, k, v = F.linear(h, block.attn.qkv.weight, block.attn.qkv.bias).chunk(3, dim=-1)
    mixed = []
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        weights = (q[:, part] @ k[:, part].T / (dim // heads) ** 0.5).softmax(dim=-1)
        mixed.append(weights @ v[:, part])
    x = x + F.linear(torch.cat(mixed, dim=-1), block.attn.proj.weight, block.attn.proj.bias)
    h = F.layer_norm(x, (dim,), block.norm2.weight, block.norm2.bias, 1e-6)
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(h)))


def loop_step(model, images, orders, parts):
    """One EMAE step as the paper writes it: image by image, part by part, pair by pair, without any batching."""
    encoder, decoder = model.backbone, model.decoder
    p, patches = encoder.patch_size, encoder.num_patches
    columns = encoder.grid_size[1]
    rec, sc = [], []
    for image, order in zip(images, orders[:, 0], strict=True):
        cut = [image[:, r * p : (r + 1) * p, c * p : (c + 1) * p] for r in range(columns) for c in range(columns)]
        tokens = [
            encoder.patch_embed.proj.weight.flatten(1) @ piece.flatten() + encoder.patch_embed.proj.bias
            for piece in cut
        ]
        target = torch.stack([piece.permute(1, 2, 0).flatten() for piece in cut])
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        predictions, hidden = [], []
        for visible in order.reshape(parts, -1).tolist():
            x = [encoder.cls_token[0, 0] + encoder.pos_embed[0, 0]]
            x = torch.stack(x + [tokens[i] + encoder.pos_embed[0, 1 + i] for i in visible])
            for block in encoder.blocks:
                x = attention_block(x, block)
            x = decoder.decoder_embed(encoder.norm(x))
            full = [x[0]] + [
                x[1 + visible.index(i)] if i in visible else decoder.mask_token[0, 0] for i in range(patches)
            ]
            x = torch.stack(full) + decoder.decoder_pos_embed[0]
            for block in decoder.decoder_blocks:
                x = attention_block(x, block)
            predictions.append(decoder.decoder_pred(decoder.decoder_norm(x))[1:])
            hidden.append([i for i in range(patches) if i not in visible])
            rec.append((predictions[-1][hidden[-1]] - target[hidden[-1]]).square().mean())
        for i, j in itertools.combinations(range(parts), 2):
            shared = sorted(set(hidden[i]) & set(hidden[j]))
            if not shared:
                sc.append(image.new_zeros(()))
                continue
            a, b = predictions[i][shared], predictions[j][shared]
            sc.append(((a.detach() - b).abs() + (a - b.detach()).abs()).mean())
    return torch.stack(rec).mean(), torch.stack(sc).mean()


@pytest.mark.parametrize("parts", [2, 4, 7, 8, 14])
def test_losses_and_every_gradient_equal_a_float64_loop(parts):
    img_size = 64 if parts == 8 else 56 if parts == 7 else 112
    model = tiny(EMAE, img_size=img_size, num_parts=parts)
    images = torch.randn(2, 3, img_size, img_size, dtype=torch.float64)
    orders = model.masking.draw(2, model.backbone.num_patches)
    out = forward_parts(model, images, orders)
    sum(out.losses.values()).backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    rec, sc = loop_step(model, images, orders, parts)
    (rec + sc).backward()
    # float64 on both sides, summed in another order
    assert out.losses["loss_reconstruction"].item() == pytest.approx(rec.item(), rel=1e-10)
    assert out.losses["loss_consistency"].item() == pytest.approx(sc.item(), rel=1e-10, abs=0.0)
    if parts == 2:
        assert out.losses["loss_consistency"].item() == 0.0
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = parameter.grad.abs().max()
            assert (ours[name] - parameter.grad).abs().max() <= 1e-9 * scale, name


@pytest.mark.parametrize("masking", ["PureRandomMasking", "ComplementaryMasking"])
def test_other_strategies_train_and_report_both_losses(masking):
    model = tiny(MaskedAutoencoder, img_size=64, masking=dict(type=masking))
    out = forward_parts(model, torch.randn(2, 3, 64, 64).double(), model.masking.draw(2, 64))
    assert torch.isfinite(sum(out.losses.values()))
    sizes = [ids.shape[-1] for ids in out.ids_keep]
    assert sizes == ([16] if masking == "PureRandomMasking" else [16, 48])
    # 25 % and 75 % of one order share no hidden patch
    assert (out.losses["loss_consistency"].item() == 0) == (masking == "ComplementaryMasking")


def test_complementary_reconstruction_averages_both_parts():
    model = tiny(MaskedAutoencoder, img_size=64, masking=dict(type="ComplementaryMasking"), consistency_weight=0.0)
    out = forward_parts(model, torch.randn(2, 3, 64, 64).double(), model.masking.draw(2, 64))
    parts = []
    for prediction, mask in zip(out.predictions, out.masks, strict=True):
        error = (prediction[:, 0] - out.targets).square().mean(-1) * mask[:, 0]
        parts.append(error.sum() / mask.sum())
    assert out.losses["loss_reconstruction"].item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)


def test_one_part_of_four_is_mae():
    """Acceptance test 2: with the same noise, the first parallel part is MAE's visible set and gives MAE's loss."""
    mae = tiny(MAE, dtype=torch.float32)
    emae = tiny(EMAE, dtype=torch.float32, num_parts=4)
    emae.load_state_dict(mae.state_dict())
    images = torch.randn(2, 3, 112, 112)
    orders = mae.masking.draw(2, 196)
    one, four = forward_parts(mae, images, orders), forward_parts(emae, images, orders)
    assert torch.equal(one.masks[0][:, 0], four.masks[0][:, 0])
    error = (four.predictions[0][:, 0] - four.targets).square().mean(-1) * four.masks[0][:, 0]
    kept = error.sum() / four.masks[0][:, 0].sum()
    assert kept.item() == pytest.approx(one.losses["loss_reconstruction"].item(), abs=1e-6)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_mae_equals_transformers_vitmae(norm_pix):
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=192, image_size=64, patch_size=8,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=4,
        decoder_intermediate_size=128, norm_pix_loss=norm_pix, layer_norm_eps=1e-6, attn_implementation="eager",
    )  # fmt: skip
    theirs = ViTMAEForPreTraining(config).eval()
    ours = tiny(MAE, img_size=64, dtype=torch.float32, norm_pix=norm_pix).eval()
    theirs.load_state_dict(hugging_face_names(ours, theirs))
    images, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 64)
    expected = theirs(images, noise=noise)
    out = forward_parts(ours, images, noise.argsort(dim=1).unsqueeze(1))
    assert torch.equal(out.masks[0][:, 0], expected.mask)
    # two float32 implementations of the same six blocks
    assert torch.allclose(out.predictions[0][:, 0], expected.logits, atol=2e-5)
    assert out.losses["loss_reconstruction"].item() == pytest.approx(expected.loss.item(), rel=1e-5)


def hugging_face_names(ours, theirs):
    """Our weights under the names transformers gives them; every one of its names must be found."""
    own = ours.state_dict()
    state = {}
    for name in theirs.state_dict():
        key = name.replace("decoder.decoder_layers.", "decoder.decoder_blocks.").replace("vit.", "backbone.")
        key = key.replace("encoder.layer.", "blocks.").replace("backbone.layers.", "backbone.blocks.")
        key = key.replace("embeddings.cls_token", "cls_token").replace("embeddings.position_embeddings", "pos_embed")
        key = key.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        key = key.replace("backbone.layernorm.", "backbone.norm.").replace("attention.output.dense", "attn.proj")
        key = key.replace("attention.o_proj", "attn.proj").replace("mlp.up_proj", "mlp.fc1")
        key = key.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        key = key.replace("mlp.down_proj", "mlp.fc2")
        key = key.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        for index, letters in enumerate((("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))):
            for letter in letters:
                for middle in (f"attention.attention.{letter}", f"attention.{letter}"):
                    if middle in key:
                        rows = own[key.replace(middle, "attn.qkv")].chunk(3)
                        key, state[name] = None, rows[index]
                        break
                if key is None:
                    break
            if key is None:
                break
        if key is not None:
            state[name] = own[key]
    return state


def test_official_release_layout_loads_completely(tmp_path):
    model = tiny(MAE, img_size=64, dtype=torch.float32)
    flat = {name.removeprefix("backbone.").removeprefix("decoder."): t for name, t in model.state_dict().items()}
    assert {"cls_token", "mask_token", "decoder_pos_embed", "decoder_pred.weight", "blocks.1.mlp.fc2.bias"} <= set(flat)
    torch.save({"model": flat}, tmp_path / "mae_pretrain_full.pth")
    other = tiny(MAE, img_size=64, dtype=torch.float32)
    load_pretraining(other, tmp_path / "mae_pretrain_full.pth")
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in other.state_dict().items())
    del flat["mask_token"]
    torch.save({"model": flat}, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match="mask_token: missing"):
        load_pretraining(other, tmp_path / "cut.pth")


def test_parameter_names_are_those_of_the_official_release():
    """The names of facebookresearch/mae's MaskedAutoencoderViT, written out."""
    layers = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    block = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    expected = {"cls_token", "pos_embed", "mask_token", "decoder_pos_embed"}
    for layer in ("patch_embed.proj", "norm", "decoder_embed", "decoder_norm", "decoder_pred"):
        expected |= {f"{layer}.weight", f"{layer}.bias"}
    expected |= {f"{stack}.{i}.{name}" for stack in ("blocks", "decoder_blocks") for i in range(2) for name in block}
    names = [name.removeprefix("backbone.").removeprefix("decoder.") for name in tiny(EMAE).state_dict()]
    assert set(names) == expected and len(names) == len(expected)


@pytest.mark.parametrize(
    ("weights", "present"),
    [
        ((1.0, 0.0), {"loss_reconstruction"}),
        ((0.0, 1.0), {"loss_consistency", "prediction_variance"}),
        ((2.0, 0.5), None),
    ],
)
def test_loss_weights(weights, present):
    model = tiny(EMAE, img_size=64, reconstruction_weight=weights[0], consistency_weight=weights[1])
    plain = tiny(EMAE, img_size=64)
    plain.load_state_dict(model.state_dict())
    images, orders = torch.randn(2, 3, 64, 64).double(), model.masking.draw(2, 64)
    weighted, base = forward_parts(model, images, orders).losses, forward_parts(plain, images, orders).losses
    assert set(weighted) == (present or set(base))
    for name, weight in zip(("loss_reconstruction", "loss_consistency"), weights, strict=True):
        if weight:
            assert weighted[name].item() == pytest.approx(weight * base[name].item(), rel=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        (dict(num_parts=5), "does not divide"),
        (dict(reconstruction_weight=0.0, num_parts=2), "no loss"),
        (dict(sc_norm="mean"), "sc_norm='mean'"),
        (dict(consistency_weight=-1.0), "negative"),
        (dict(masking=dict(type="Checkerboard")), "Checkerboard"),
    ],
)
def test_impossible_configurations_are_refused_when_built(kwargs, named):
    with pytest.raises(ConfigError, match=named):
        tiny(EMAE, img_size=64, **kwargs)


def test_openmmlab_entry_points():
    from mmengine.registry import MODELS
    from mmpretrain.models.selfsup.base import BaseSelfSupervisor

    import emae_mm.registry  # noqa: F401

    model = MODELS.build(
        dict(
            type="emae_mm.EMAE",
            backbone=dict(arch=ARCH, img_size=64, patch_size=8),
            decoder=DECODER,
            data_preprocessor=dict(type="mmpretrain.SelfSupDataPreprocessor", mean=[127.5] * 3, std=[127.5] * 3),
        )
    )
    assert isinstance(model, BaseSelfSupervisor)
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    data = model.data_preprocessor(dict(inputs=[images], data_samples=[]), True)
    losses = model(**data, mode="loss")
    total, _ = model.parse_losses(losses)
    total.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert model(data["inputs"], mode="tensor").shape == (2, 65, 48)
