"""The losses against plain float64 loops over parts and pairs."""

import itertools

import pytest
import torch

from emae_mm.errors import ConfigError
from emae_mm.models.losses import (
    patchify,
    pixel_targets,
    reconstruction_loss,
    self_consistency_loss,
    unpatchify,
)
from emae_mm.models.masking import ParallelMasking, PureRandomMasking, hidden_mask
from emae_mm.models.pairwise import SumOfPairwiseDistances, sorting_network


def loop_consistency(predictions, mask, norm="overlap"):
    """protocols 1.2, literally: two stop-gradients, pair by pair, image by image."""
    batch, parts, patches, _ = predictions.shape
    losses = []
    for image in range(batch):
        pairs = []
        for i, j in itertools.combinations(range(parts), 2):
            shared = mask[image, i] * mask[image, j]
            if shared.sum() == 0:
                pairs.append(predictions.new_zeros(()))
                continue
            p, q = predictions[image, i], predictions[image, j]
            distance = (p.detach() - q).abs() + (p - q.detach()).abs()
            count = shared.sum() if norm == "overlap" else patches
            pairs.append((distance.mean(dim=-1) * shared).sum() / count)
        losses.append(torch.stack(pairs).mean())
    return torch.stack(losses).mean()


def parts_of(strategy, batch=2, patches=56, pixels=6, dtype=torch.float64):
    (ids_keep,) = strategy.split(strategy.draw(batch, patches))
    mask = hidden_mask(ids_keep, patches).to(dtype)
    return torch.randn(batch, ids_keep.shape[1], patches, pixels, dtype=dtype), mask


@pytest.mark.parametrize("size", range(1, 14))
def test_sorting_network_sorts_every_zero_one_input(size):
    """The zero-one principle: a network that sorts all 0-1 sequences sorts everything."""
    for bits in itertools.product((0, 1), repeat=size):
        wires = list(bits)
        for low, high in sorting_network(size):
            if wires[low] > wires[high]:
                wires[low], wires[high] = wires[high], wires[low]
        assert wires == sorted(bits)


@pytest.mark.parametrize("parts", [2, 4, 7, 8, 14])
@pytest.mark.parametrize("norm", ["overlap", "allpos"])
def test_fast_consistency_equals_the_loop(parts, norm):
    predictions, mask = parts_of(ParallelMasking(parts))
    a, b = predictions.clone().requires_grad_(), predictions.clone().requires_grad_()
    fast = self_consistency_loss(a, mask, partitions=True, norm=norm)
    slow = loop_consistency(b, mask, norm)
    # both in float64, summed in another order
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
    if parts == 2:
        assert fast.item() == 0.0 and not fast.requires_grad
        return
    fast.backward()
    slow.backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("norm", ["overlap", "allpos"])
def test_pairwise_consistency_equals_the_loop_for_unequal_overlaps(norm):
    predictions, mask = parts_of(PureRandomMasking(4, 0.75))
    a, b = predictions.clone().requires_grad_(), predictions.clone().requires_grad_()
    fast = self_consistency_loss(a, mask, partitions=False, norm=norm)
    slow = loop_consistency(b, mask, norm)
    fast.backward()
    slow.backward()
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
    assert torch.allclose(a.grad, b.grad, rtol=1e-10, atol=1e-14)


def test_gradient_is_that_of_plain_l1_and_value_is_twice_its_mean():
    """Acceptance test 3: the two-sided stop-gradient only doubles the logged value."""
    predictions, mask = parts_of(ParallelMasking(4))
    a, b = predictions.clone().requires_grad_(), predictions.clone().requires_grad_()
    value = self_consistency_loss(a, mask, partitions=True)
    value.backward()
    pairs = []
    for i, j in itertools.combinations(range(4), 2):
        shared = (mask[:, i] * mask[:, j]).unsqueeze(-1)
        pairs.append(((b[:, i] - b[:, j]).abs() * shared).sum() / (shared.sum() * b.shape[-1]))
    plain = torch.stack(pairs).mean()
    plain.backward()
    assert value.item() == pytest.approx(2 * plain.item(), rel=1e-12)
    assert torch.allclose(a.grad, b.grad, rtol=1e-10, atol=1e-14)


def test_consistency_is_zero_with_zero_gradient_when_parts_agree():
    predictions, mask = parts_of(ParallelMasking(7))
    agreed = predictions[:, :1].expand_as(predictions).clone().requires_grad_()
    loss = self_consistency_loss(agreed, mask, partitions=True)
    loss.backward()
    assert loss.item() == 0.0
    assert not agreed.grad.any()


def test_ties_get_the_gradient_of_plain_absolute_differences():
    values = torch.randint(0, 3, (2, 6, 50)).double()
    a, b = values.clone().requires_grad_(), values.clone().requires_grad_()
    SumOfPairwiseDistances.apply(a).backward()
    total = sum((b[:, i] - b[:, j]).abs().sum() for i, j in itertools.combinations(range(6), 2))
    total.backward()
    assert torch.equal(a.grad, b.grad)


def test_consistency_does_not_depend_on_the_order_of_parts():
    predictions, mask = parts_of(ParallelMasking(4))
    order = torch.tensor([2, 0, 3, 1])
    assert self_consistency_loss(predictions[:, order], mask[:, order], partitions=True).item() == pytest.approx(
        self_consistency_loss(predictions, mask, partitions=True).item(), rel=1e-6
    )


@pytest.mark.parametrize("parts", [4, 7, 14])
def test_allpos_is_smaller_by_the_overlap(parts):
    """Acceptance test 4: allpos = (K-2)/K x overlap."""
    predictions, mask = parts_of(ParallelMasking(parts))
    overlap = self_consistency_loss(predictions, mask, partitions=True, norm="overlap").item()
    allpos = self_consistency_loss(predictions, mask, partitions=True, norm="allpos").item()
    assert allpos == pytest.approx((parts - 2) / parts * overlap, rel=1e-12)


def test_chunks_do_not_change_the_result(monkeypatch):
    values = torch.randn(5, 3, 7, 11, dtype=torch.float64)
    whole = SumOfPairwiseDistances.apply(values)
    monkeypatch.setattr(SumOfPairwiseDistances, "CHUNK_ELEMENTS", 1)
    # summation order differs: float64 rounding
    assert SumOfPairwiseDistances.apply(values).item() == pytest.approx(whole.item(), rel=1e-12)


def test_unknown_normaliser_is_refused():
    predictions, mask = parts_of(ParallelMasking(4))
    with pytest.raises(ConfigError, match="sc_norm='mean'"):
        self_consistency_loss(predictions, mask, partitions=True, norm="mean")


def test_reconstruction_counts_hidden_patches_only():
    predictions, mask = parts_of(ParallelMasking(4))
    targets = torch.randn(2, 56, 6, dtype=torch.float64)
    expected = []
    for part in range(4):
        error = (predictions[:, part] - targets).square().mean(dim=-1) * mask[:, part]
        expected.append(error.sum() / mask[:, part].sum())
    assert reconstruction_loss(predictions, targets, mask).item() == pytest.approx(
        torch.stack(expected).mean().item(), rel=1e-5
    )
    visible = mask.unsqueeze(-1) == 0
    disturbed = predictions + 100 * visible
    assert reconstruction_loss(disturbed, targets, mask).item() == pytest.approx(
        reconstruction_loss(predictions, targets, mask).item(), rel=1e-6
    )


def test_patchify_is_channels_last_row_major_and_invertible():
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4], images[1, :, 2:4, 2:4].permute(1, 2, 0).flatten())
    assert torch.equal(unpatchify(patches, 2, (2, 3)), images)


def test_normalised_targets_have_unit_unbiased_variance():
    targets = pixel_targets(torch.rand(2, 3, 8, 8), 4, norm_pix=True)
    assert torch.allclose(targets.mean(dim=-1), torch.zeros(2, 4), atol=1e-5)
    # the eps of 1e-6 under the root moves the variance of about 0.08 by 1e-5 of itself
    assert torch.allclose(targets.var(dim=-1), torch.ones(2, 4), rtol=1e-4)
    flat = pixel_targets(torch.full((1, 3, 8, 8), 0.5), 4, norm_pix=True)
    assert torch.isfinite(flat).all()


def test_half_precision_predictions_are_compared_in_float32():
    predictions, mask = parts_of(ParallelMasking(4), dtype=torch.float32)
    halves = predictions.bfloat16()
    loss = self_consistency_loss(halves, mask, partitions=True)
    assert loss.dtype == torch.float32
    assert loss.item() == self_consistency_loss(halves.float(), mask, partitions=True).item()
