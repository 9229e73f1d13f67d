"""What training leaves out or puts off changes nothing: the same losses and gradients as the form that computes all."""

import pytest
import torch
import torch.nn.functional as F

from emae_mm.cost.memory import peak_of_step
from emae_mm.errors import ConfigError
from emae_mm.models import MAEDecoder
from emae_mm.models.algorithms import EMAE, MAE, MaskedAutoencoder, forward_parts
from emae_mm.models.linear import Linear, linear
from emae_mm.models.masking import ParallelMasking, RandomMasking, complement

ARCH = dict(embed_dim=48, depth=2, num_heads=3)
STRATEGIES = ["ParallelMasking", "RandomMasking", "PureRandomMasking", "ComplementaryMasking"]


def build(masking="ParallelMasking", depth=2, img_size=64, **kwargs):
    torch.manual_seed(0)
    backbone = dict(arch=ARCH, img_size=img_size, patch_size=8)
    decoder = dict(decoder_dim=32, depth=depth, num_heads=4)
    masking = masking if isinstance(masking, dict) else dict(type=masking)
    return MaskedAutoencoder(backbone=backbone, decoder=decoder, masking=masking, **kwargs).double()


def gradients(model, losses):
    model.zero_grad()
    sum(value for name, value in losses.items() if "loss" in name).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        # float64, summed in another order
        assert (ours[name] - gradient).abs().max() <= 1e-12 * max(1.0, gradient.abs().max().item()), name


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("masking", STRATEGIES)
def test_training_equals_predicting_everywhere(masking, depth):
    model = build(masking, depth)
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    orders = model.draw(images)
    everywhere, hidden = forward_parts(model, images, orders).losses, model.losses(images, orders)
    assert set(everywhere) == set(hidden)
    for name, value in everywhere.items():
        assert hidden[name].item() == pytest.approx(value.item(), rel=1e-13, abs=1e-16)
    assert_same(gradients(model, hidden), gradients(model, everywhere))


def test_decoder_against_plain_blocks_on_all_tokens():
    """The savings of the first and the last block, against the blocks' own forward on the whole sequence."""
    torch.manual_seed(0)
    decoder = MAEDecoder(48, (8, 8), 8, decoder_dim=32, depth=3, num_heads=4).double()
    (ids_keep,) = ParallelMasking(4).split(torch.rand(2, 1, 64).argsort(-1))
    latents = torch.randn(8, 17, 48, dtype=torch.float64)
    tokens = decoder.decoder_embed(latents)
    patches = decoder.mask_token.expand(8, 64, -1)
    index = ids_keep.reshape(8, 16, 1).expand(-1, -1, 32)
    tokens = torch.cat([tokens[:, :1], patches.scatter(1, index, tokens[:, 1:])], 1) + decoder.decoder_pos_embed
    plain = decoder.decoder_pred(decoder.decoder_norm(decoder.decoder_blocks(tokens)))[:, 1:].unflatten(0, (2, 4))
    assert torch.allclose(decoder(latents, ids_keep), plain, rtol=1e-12, atol=1e-13)
    hidden = complement(ids_keep, 64)
    expected = plain.gather(2, hidden.unsqueeze(-1).expand(-1, -1, -1, plain.shape[-1]))
    assert torch.allclose(decoder(latents, ids_keep, hidden), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("parts_per_pass", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("masking", STRATEGIES)
def test_part_by_part_gives_the_one_pass_gradients(masking, parts_per_pass):
    one_pass, in_turn = build(masking), build(masking, parts_per_pass=parts_per_pass)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    orders = one_pass.draw(images)
    expected, losses = one_pass.losses(images, orders), in_turn.losses(images, orders)
    assert {k: v.item() for k, v in losses.items()} == pytest.approx({k: v.item() for k, v in expected.items()})
    assert_same(gradients(in_turn, losses), gradients(one_pass, expected))


@pytest.mark.parametrize("parts", [4, 14])
def test_part_by_part_needs_a_fraction_of_the_memory(parts):
    """Counted on the meta device over forward and backward pass: near 1/K of the activations, plus predictions."""
    peaks = {}
    for at_once in (None, 1):
        backbone = dict(arch="small", img_size=224, patch_size=16)
        with torch.device("meta"):
            model = EMAE(backbone=backbone, num_parts=parts, parts_per_pass=at_once)
            images, orders = torch.empty(8, 3, 224, 224), torch.rand(8, 1, 196).argsort(-1)
        peaks[at_once] = peak_of_step(model, lambda m=model, i=images, o=orders: sum(m.losses(i, o).values()))
    # Beyond one part's activations there are all parts' predictions and their gradients (P = 768 values a patch).
    assert peaks[1] / peaks[None] < 1 / parts + 0.08


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_share_of_the_hidden_patches_is_predicted(share):
    orders = torch.rand(5, 1, 196).argsort(-1)
    (group,) = ParallelMasking(7).groups(orders, share)
    assert group.ids_hidden.shape == (5, 7, 6 * round(28 * share))
    times = torch.zeros(5, 196).scatter_add_(1, group.ids_hidden.flatten(1), torch.ones(5, 7 * 6 * round(28 * share)))
    # every predicted patch has the predictions of all K-1 parts it is hidden from, none of its own
    assert set(times.unique().tolist()) <= {0.0, 6.0}
    visible = torch.zeros(5, 7, 196, dtype=torch.bool).scatter_(2, group.ids_keep, True)
    assert not visible.gather(2, group.ids_hidden).any()
    (mae,) = RandomMasking(0.75).groups(orders, share)
    assert mae.ids_hidden.shape == (5, 1, round(147 * share))


def test_predicting_fewer_patches_decodes_fewer_tokens():
    model = build(predicted_share=0.5)
    seen = []
    model.decoder.decoder_blocks[-1].mlp.register_forward_hook(lambda m, inputs, output: seen.append(output.shape))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    losses = model.losses(images, model.draw(images))
    assert seen == [(8, 24, 32)]  # 2 images x 4 parts, half of 48 hidden patches
    assert losses["loss_consistency"].item() > 0 and losses["loss_reconstruction"].item() > 0


@pytest.mark.parametrize(
    ("options", "named"),
    [(dict(parts_per_pass=0), "parts_per_pass=0"), (dict(predicted_share=0.0), "predicted_share"),
     (dict(predicted_share=1.5), "predicted_share")],
)  # fmt: skip
def test_impossible_savings_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        build(**options)


def test_prediction_variance_is_that_over_images_and_positions():
    model = build(reconstruction_weight=0.0)
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    orders = model.draw(images)
    losses = model.losses(images, orders)
    (group,) = model.masking.groups(orders)
    predictions = model.predict(model.backbone.embed(images), group)
    expected = predictions.flatten(0, 2).var(dim=0).mean()
    assert losses["prediction_variance"].item() == pytest.approx(expected.item(), rel=1e-12)
    assert not losses["prediction_variance"].requires_grad
    torch.nn.init.zeros_(model.decoder.decoder_pred.weight)  # a collapsed model answers the same everywhere
    assert model.losses(images, orders)["prediction_variance"].item() < 1e-20
    assert "prediction_variance" not in build().losses(images, orders)


@pytest.mark.parametrize("parts", [4, 7, 14, 28])
def test_matching_mask_ratios_leave_whole_parts_visible(parts):
    """13/14 of 196 patches in floating point leaves 13.999... patches, which must not be rounded to 13."""
    orders = torch.rand(1, 1, 196).argsort(-1)
    (ids_keep,) = RandomMasking(1 - 1 / parts).split(orders)
    assert ids_keep.shape[-1] == 196 // parts
    backbone = dict(arch=ARCH, img_size=112, patch_size=8)
    assert MAE(backbone=backbone, mask_ratio=(parts - 1) / parts).masking.split(orders)[0].shape[-1] == 196 // parts


class TestLinear:
    """oneDNN's product against torch's."""

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("shape", [(5, 48), (2, 7, 48), (2, 3, 7, 48)])
    def test_values_and_gradients(self, shape, bias):
        torch.manual_seed(0)
        tensors = [torch.randn(shape), torch.randn(32, 48), *([torch.randn(32)] if bias else [])]
        ours = [t.clone().requires_grad_() for t in tensors]
        theirs = [t.double().requires_grad_() for t in tensors]
        out, expected = linear(*ours), F.linear(*theirs)
        # sums of 48 products in float32
        assert torch.allclose(out.double(), expected, atol=1e-5)
        weights = torch.randn_like(out)
        (out * weights).sum().backward()
        (expected * weights.double()).sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a.grad.double(), b.grad, atol=1e-4)

    def test_strided_tokens_and_weights(self):
        torch.manual_seed(0)
        tokens, weight = torch.randn(4, 9, 48), torch.randn(96, 48)
        out = linear(tokens[:, 3:], weight[32:64])
        assert torch.allclose(out, F.linear(tokens[:, 3:], weight[32:64]), atol=1e-5)

    def test_only_what_needs_a_gradient_gets_one(self):
        tokens, weight = torch.randn(4, 48), torch.randn(8, 48, requires_grad=True)
        linear(tokens, weight).sum().backward()
        assert tokens.grad is None and weight.grad is not None

    def test_other_precisions_are_torchs(self):
        layer = Linear(8, 4)
        tokens = torch.randn(2, 8)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(tokens).dtype == torch.bfloat16
        assert torch.equal(layer.double()(tokens.double()), F.linear(tokens.double(), layer.weight, layer.bias))

    def test_it_is_what_the_models_use(self):
        model = MAE(backbone=dict(arch=ARCH, img_size=64, patch_size=8), decoder=dict(decoder_dim=32, num_heads=4))
        layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        assert len(layers) == 2 * 4 + 8 * 4 + 2 and all(type(layer) is Linear for layer in layers)
