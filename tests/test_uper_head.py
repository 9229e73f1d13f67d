"""The head with the factored convolution against mmsegmentation's own and against torch's plain convolution."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import UPerHead as PeersHead

from emae_mm.models.uper_head import UPerHead, conv_of_resized, resizing_matrix


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "target"), [(4, 8), (3, 12), (5, 7), (8, 3), (1, 6), (6, 6)])
def test_resizing_matrix_is_interpolation(size, target, align_corners):
    line = torch.randn(2, 3, size)
    expected = F.interpolate(line, size=target, mode="linear", align_corners=align_corners)
    ours = line @ resizing_matrix(size, target, align_corners, line).T
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)  # fp32 summation order


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "target"), [((4, 6), (8, 12)), ((2, 3), (8, 12)), ((1, 1), (4, 5)), ((5, 4), (9, 7))])
def test_convolution_of_a_resized_map(size, target, align_corners):
    torch.manual_seed(0)
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    weight = torch.randn(7, 5, 3, 3, dtype=torch.float64)
    found = []
    for function in (
        lambda x, w: conv_of_resized(x, w, target, align_corners),
        lambda x, w: F.conv2d(F.interpolate(x, target, mode="bilinear", align_corners=align_corners), w, padding=1),
    ):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        out = function(*leaves)
        (out * torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()).sum().backward()
        found.append([out.detach(), *(leaf.grad for leaf in leaves)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)  # float64: only the order of sums differs


def heads(**options) -> tuple[UPerHead, PeersHead]:
    options = dict(
        in_channels=[6, 6, 6, 6], in_index=[0, 1, 2, 3], channels=8, num_classes=5, norm_cfg=dict(type="BN"),
        dropout_ratio=0.0, align_corners=False,
    ) | options  # fmt: skip
    torch.manual_seed(0)
    ours, peers = UPerHead(**options), PeersHead(**options)
    peers.load_state_dict(ours.state_dict())
    return ours.double(), peers.double()


@pytest.mark.parametrize("options", [{}, dict(norm_cfg=None), dict(align_corners=True)], ids=["BN", "bias", "corners"])
@pytest.mark.parametrize("sides", [(16, 8, 4, 2), (13, 7, 3, 2)], ids=["even", "odd"])
def test_head_equals_mmsegmentations(options, sides):
    maps = [torch.randn(2, 6, side, side + 1, dtype=torch.float64) for side in sides]
    results = []
    for head in heads(**options):
        inputs = [x.clone().requires_grad_() for x in maps]
        logits = head(inputs)
        logits.square().mean().backward()
        results.append((logits.detach(), [x.grad for x in inputs], {n: p.grad for n, p in head.named_parameters()}))
    ours, theirs = results
    close = dict(rtol=1e-8, atol=1e-10)  # float64 through a few layers, some of them divided by a small deviation
    torch.testing.assert_close(ours[0], theirs[0], **close)
    torch.testing.assert_close(ours[1], theirs[1], **close)
    assert ours[2].keys() == theirs[2].keys()
    for name, gradient in theirs[2].items():
        torch.testing.assert_close(ours[2][name], gradient, **close, msg=name)


def test_channels_last_stays_and_bfloat16_is_near():
    head, _ = heads()
    head = head.float().eval()
    maps = [torch.randn(1, 6, s, s).to(memory_format=torch.channels_last) for s in (16, 8, 4, 2)]
    full = head._forward_feature(maps)
    assert full.is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = head._forward_feature(maps)
    assert reduced.dtype == torch.bfloat16
    assert (reduced - full).norm() / full.norm() < 0.02  # bf16 keeps 8 bits, a few layers
