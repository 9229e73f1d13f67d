"""ViTDet's simple feature pyramid and its channel norm against plain torch operations."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from torch import nn

from emae_mm.errors import ConfigError
from emae_mm.models import LN2d, SimpleFeaturePyramid

FORMATS = [torch.contiguous_format, torch.channels_last]


def channel_norm(x, weight, bias, eps=1e-6):
    """Mean and biased variance over the channels, written out."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * weight[:, None, None] + bias[:, None, None]


def randomise(module):
    """Weights and biases of norms that are neither one nor zero."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.5 if parameter.ndim == 1 else 0.0, 0.3)
    return module


@pytest.mark.parametrize("memory_format", FORMATS)
def test_channel_norm_is_layer_norm_at_each_place(memory_format):
    norm = randomise(LN2d(6))
    reference = nn.LayerNorm(6, eps=1e-6)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 6, 5, 3).to(memory_format=memory_format)
    ours = norm(x)
    torch.testing.assert_close(ours, reference(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), rtol=0, atol=0)
    # the same sums in another order: float32 rounding
    torch.testing.assert_close(ours, channel_norm(x, norm.weight, norm.bias), rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_channel_norm_in_mmcv():
    assert LN2d(4).eps == 1e-6
    name, norm = build_norm_layer(dict(type="emae_mm.LN2d", eps=1e-6, requires_grad=False), 4)
    assert name == "ln" and type(norm) is LN2d and norm.eps == 1e-6 and not norm.weight.requires_grad
    module = ConvModule(3, 4, 3, norm_cfg=dict(type="emae_mm.LN2d", eps=1e-6))
    assert module.conv.bias is None and type(module.norm) is LN2d
    assert module(torch.randn(1, 3, 5, 5)).shape == (1, 4, 3, 3)


def reference_pyramid(x, state):
    """The pyramid in plain operations, weight by weight."""

    def deconvolution(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)

    def norm(x, name):
        return channel_norm(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def outputs(x, level):
        x = norm(F.conv2d(x, state[f"convs.{level}.0.weight"]), f"convs.{level}.1")
        return norm(F.conv2d(x, state[f"convs.{level}.2.weight"], padding=1), f"convs.{level}.3")

    four = deconvolution(F.gelu(norm(deconvolution(x, "scales.0.0"), "scales.0.1")), "scales.0.3")
    half = F.max_pool2d(x, 2)
    levels = [four, deconvolution(x, "scales.1"), x, half]
    levels = [outputs(level, number) for number, level in enumerate(levels)]
    return [*levels, levels[-1][:, :, ::2, ::2]]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_simple_feature_pyramid(size, memory_format):
    pyramid = randomise(SimpleFeaturePyramid(16, out_channels=12))
    x = torch.randn(2, 16, *size).to(memory_format=memory_format).requires_grad_()
    maps = pyramid([x])
    expected = reference_pyramid(x, dict(pyramid.state_dict()))
    (h, w), half = size, (size[0] // 2, size[1] // 2)
    sizes = [(4 * h, 4 * w), (2 * h, 2 * w), size, half, ((half[0] + 1) // 2, (half[1] + 1) // 2)]
    assert [tuple(y.shape) for y in maps] == [(2, 12, *s) for s in sizes]
    for ours, theirs in zip(maps, expected, strict=True):
        # float32 rounding through three convolutions and three norms
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert ours.is_contiguous(memory_format=torch.channels_last)
    sum(y.square().sum() for y in maps).backward()
    assert x.grad.abs().sum() > 0 and all(p.grad is not None for p in pyramid.parameters())


def test_simple_feature_pyramid_is_as_large_as_detectron2s():
    """Counted by hand for 768 channels: transposed convolutions have biases, the others have norms."""
    with torch.device("meta"):
        pyramid = SimpleFeaturePyramid(768)
    doublings = (768 * 384 * 4 + 384) + 2 * 384 + (384 * 192 * 4 + 192) + (768 * 384 * 4 + 384)
    outputs = sum(channels * 256 for channels in (192, 384, 768, 768)) + 4 * (256 * 256 * 9 + 4 * 256)
    assert sum(p.numel() for p in pyramid.parameters()) == doublings + outputs


def test_simple_feature_pyramid_says_what_does_not_fit():
    with pytest.raises(ConfigError, match="4 feature maps"):
        SimpleFeaturePyramid(16)([torch.zeros(1, 16, 4, 4)] * 4)
    with pytest.raises(ConfigError, match="halved twice"):
        SimpleFeaturePyramid(18)
