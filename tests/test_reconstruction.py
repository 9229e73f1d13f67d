"""Reconstructions: pasted pixels, disagreement, and the picture."""

import itertools

import pytest
import torch

from emae_mm.errors import ConfigError
from emae_mm.evaluation.reconstruction import draw_panel, parallel_parts, reconstruct
from emae_mm.models.algorithms import EMAE

MEAN, STD = torch.tensor([120.0, 115.0, 100.0]), torch.tensor([58.0, 57.0, 56.0])


def model(norm_pix=True):
    arch = dict(embed_dim=32, depth=1, num_heads=2)
    return EMAE(
        backbone=dict(arch=arch, img_size=32, patch_size=8),
        decoder=dict(decoder_dim=16, depth=1, num_heads=2),
        norm_pix=norm_pix,
    ).eval()


def normalised(batch=2):
    raw = torch.rand(batch, 3, 32, 32)
    return raw, (raw * 255 - MEAN.view(-1, 1, 1)) / STD.view(-1, 1, 1)


def test_parts_are_fixed_by_the_seed():
    assert torch.equal(parallel_parts(2, 16), parallel_parts(2, 16))
    assert not torch.equal(parallel_parts(2, 16), parallel_parts(2, 16, seed=1))


@pytest.mark.parametrize("norm_pix", [True, False])
def test_visible_pixels_are_pasted_and_hidden_ones_are_not(norm_pix):
    raw, images = normalised()
    ids_keep = parallel_parts(2, 16)
    result = reconstruct(model(norm_pix), images, ids_keep, MEAN, STD)
    for image, part in itertools.product(range(2), range(4)):
        visible = set(ids_keep[image, part].tolist())
        for patch in range(16):
            row, column = divmod(patch, 4)
            window = (slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            same = torch.allclose(result.painted[image, part][window], raw[image][window], atol=1e-5)
            assert same == (patch in visible)
            grey = torch.allclose(result.masked[image, part][window], torch.tensor(0.5), atol=1e-5)
            assert grey == (patch not in visible)
    assert result.painted.min() >= 0 and result.painted.max() <= 1


def test_disagreement_is_the_mean_distance_of_two_predictions():
    _, images = normalised()
    net, ids_keep = model(), parallel_parts(2, 16)
    result = reconstruct(net, images, ids_keep, MEAN, STD)
    predictions = net.decoder(net.backbone.encode_visible(net.backbone.embed(images), ids_keep), ids_keep)
    distances = []
    for image, (i, j) in itertools.product(range(2), itertools.combinations(range(4), 2)):
        seen = set(ids_keep[image, i].tolist()) | set(ids_keep[image, j].tolist())
        shared = [p for p in range(16) if p not in seen]
        distances.append((predictions[image, i, shared] - predictions[image, j, shared]).abs().mean())
    assert result.disagreement == pytest.approx(torch.stack(distances).mean().item(), rel=1e-5)


def test_parts_that_do_not_cover_the_image_are_refused():
    _, images = normalised()
    with pytest.raises(ConfigError, match="do not cover 16"):
        reconstruct(model(), images, parallel_parts(2, 16)[:, :3], MEAN, STD)


def test_the_panel_is_a_picture(tmp_path):
    from PIL import Image

    raw, images = normalised()
    result = reconstruct(model(), images, parallel_parts(2, 16), MEAN, STD)
    draw_panel(raw, {"EMAE": result, "MAE": result}, tmp_path / "panel.png", note="a note")
    picture = Image.open(tmp_path / "panel.png")
    assert picture.size[0] > 300 and len(picture.convert("RGB").getcolors(1 << 24)) > 100
