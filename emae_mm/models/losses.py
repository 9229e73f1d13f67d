"""Losses of masked image modelling: pixel reconstruction (MAE) and self-consistency (EMAE).

All losses are computed in float32 when the model runs in half precision, otherwise in the model's own precision.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from emae_mm.errors import ConfigError

PIXEL_EPS = 1e-6
CONSISTENCY_NORMS = ("overlap", "allpos")


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches, pixels row-major with channels last as in the MAE release.

    Args:
        images: (B, C, H, W), H and W multiples of ``patch_size``.

    Returns:
        (B, N, P) with N = H*W / patch_size**2 and P = patch_size**2 * C.
    """
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size**2 * channels)


def unpatchify(patches: Tensor, patch_size: int, grid_size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patchify`: (B, N, P) -> (B, C, H, W)."""
    rows, columns = grid_size
    pixels = patches.reshape(patches.shape[0], rows, columns, patch_size, patch_size, -1)
    return pixels.permute(0, 5, 1, 3, 2, 4).reshape(patches.shape[0], -1, rows * patch_size, columns * patch_size)


def pixel_targets(images: Tensor, patch_size: int, norm_pix: bool) -> Tensor:
    """Reconstruction targets (B, N, P); with ``norm_pix`` each patch has zero mean and unit (unbiased) variance."""
    targets = patchify(full_precision(images), patch_size)
    if norm_pix:
        variance, mean = torch.var_mean(targets, dim=-1, keepdim=True)
        targets = (targets - mean) / (variance + PIXEL_EPS).sqrt()
    return targets


def reconstruction_loss(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the hidden patches of each part, averaged over parts (EMAE Eq. 8; MAE for K=1).

    Args:
        predictions: (B, K, N, P).
        targets: (B, N, P), shared by the parts.
        mask: (B, K, N), 1 = hidden.

    Returns:
        scalar.
    """
    error = (full_precision(predictions) - targets.unsqueeze(1)).square().mean(dim=-1)
    return ((error * mask).sum(dim=(0, 2)) / mask.sum(dim=(0, 2))).mean()


def self_consistency_loss(predictions: Tensor, mask: Tensor, *, partitions: bool, norm: str = "overlap") -> Tensor:
    """How much parts disagree about the patches that are hidden from both (EMAE Eq. 9-11).

    For every pair of parts i < j and the positions hidden from both: ``|sg(p_i) - p_j| + |p_i - sg(p_j)|`` averaged
    over pixels and positions, then over pairs. Because of the two stop-gradients the gradient is that of the plain mean
    of ``|p_i - p_j|`` while the value is twice that mean; that is how it is computed here.

    Args:
        predictions: (B, K, N, P).
        mask: (B, K, N), 1 = hidden.
        partitions: the visible patches of the K parts partition the image (parallel masking): computed by sorting the
            K-1 predictions of each position instead of comparing all pairs.
        norm: ``"overlap"`` divides a pair's sum by the positions it shares, which makes the value independent of K;
            ``"allpos"`` divides by all positions and is (K-2)/K smaller under parallel masking.

    Returns:
        scalar; exactly 0 without a gradient when no two parts share a hidden position (K = 2 disjoint parts).

    Raises:
        ConfigError: unknown ``norm``.
    """
    if norm not in CONSISTENCY_NORMS:
        raise ConfigError(f"sc_norm={norm!r} is unknown", f"use one of {CONSISTENCY_NORMS}")
    mean_distance = _disjoint_distance if partitions else _pairwise_distance
    distance = mean_distance(full_precision(predictions), mask, norm)
    return distance + distance.detach()


def _pairwise_distance(predictions: Tensor, mask: Tensor, norm: str) -> Tensor:
    """Mean over pairs of mean |p_i - p_j|, for masks whose overlaps may differ."""
    parts, patches = mask.shape[1:]
    total = predictions.new_zeros(())
    for i in range(parts):
        for j in range(i + 1, parts):
            shared = mask[:, i] * mask[:, j]
            if not shared.any():
                continue
            distance = (predictions[:, i] - predictions[:, j]).abs().mean(dim=-1)
            positions = shared.sum(dim=1) if norm == "overlap" else shared.new_full((), patches)
            total = total + ((distance * shared).sum(dim=1) / positions.clamp(min=1)).mean()
    return total / max(parts * (parts - 1) // 2, 1)


def _disjoint_distance(predictions: Tensor, mask: Tensor, norm: str) -> Tensor:
    """The same mean when the parts partition the image, in O(K log K) per pixel."""
    batch, parts, patches, pixels = predictions.shape
    if parts < 3:
        return predictions.new_zeros(())
    # The one part that sees a position is left out there: its prediction of that position is never compared.
    seen_by = mask.argmin(dim=1, keepdim=True)
    others = torch.arange(parts - 1, device=mask.device).view(1, -1, 1)
    others = others + (others >= seen_by)
    hidden = predictions.gather(1, others.unsqueeze(-1).expand(-1, -1, -1, pixels))
    positions = patches * (parts - 2) / parts if norm == "overlap" else patches
    return SumOfPairwiseDistances.apply(hidden) / (batch * positions * pixels * (parts * (parts - 1) // 2))


def sorting_network(size: int) -> list[tuple[int, int]]:
    """Comparators (low, high) of Batcher's odd-even merge sort for ``size`` wires; O(size log**2 size) of them."""
    comparators = []
    p = 1
    while p < size:
        k = p
        while k >= 1:
            for j in range(k % p, size - k, 2 * k):
                for i in range(min(k, size - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        comparators.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return comparators


class SumOfPairwiseDistances(torch.autograd.Function):
    """Sum over m values of all ``|x_i - x_j|``, i < j, and over everything else, by sorting.

    In ascending order the value of rank r (from 0) is larger than r others and smaller than m-1-r, so it enters the sum
    with the factor 2r-m+1, which is also its derivative. Among equal values every one takes the mean of their factors:
    the derivative of plain absolute differences, where sign(0) = 0. The m values are sorted plane by plane with a
    network of elementwise minima and maxima, many times faster than ``torch.sort`` on short rows, and the network is
    run backwards on the factors, so only one byte per value is kept for the backward pass.

    Input (B, m, ...) floating point with m < 128; output a scalar.
    """

    CHUNK_ELEMENTS = 1 << 19  # keeps a chunk's planes inside a CPU's last-level cache

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        # A chunk is at least one image; on an accelerator one large launch is faster than many small ones.
        per_image = values[0].numel()
        images = (
            max(1, SumOfPairwiseDistances.CHUNK_ELEMENTS // per_image) if values.device.type == "cpu" else len(values)
        )
        factors = torch.empty_like(values, dtype=torch.int8)
        total = values.new_zeros(())
        for chunk, factor in zip(values.split(images), factors.split(images), strict=True):
            total += _pairwise_factors(chunk, factor)
        ctx.save_for_backward(factors)
        ctx.dtype = values.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (factors,) = ctx.saved_tensors
        return factors.to(ctx.dtype) * grad


def _pairwise_factors(values: Tensor, out: Tensor) -> Tensor:
    """Write each value's factor into ``out`` and return the sum of factor times value."""
    planes = list(values.unbind(1))
    size = len(planes)
    network = sorting_network(size)
    swapped = []
    for low, high in network:
        swapped.append(planes[low] > planes[high])
        planes[low], planes[high] = torch.minimum(planes[low], planes[high]), torch.maximum(planes[low], planes[high])
    factors = _tie_aware_factors(planes)
    total = sum((factor.to(plane.dtype) * plane).sum() for factor, plane in zip(factors, planes, strict=True))
    for (low, high), swap in zip(reversed(network), reversed(swapped), strict=True):
        factors[low], factors[high] = (
            torch.where(swap, factors[high], factors[low]),
            torch.where(swap, factors[low], factors[high]),
        )
    for index, factor in enumerate(factors):
        out[:, index] = factor
    return total


def _tie_aware_factors(planes: list[Tensor]) -> list[Tensor]:
    """Factors of sorted planes: with a run of equal values from rank a to rank b, all of the run get a + b - (m-1)."""
    size = len(planes)
    ranks = [torch.full_like(planes[0], rank, dtype=torch.int8) for rank in range(size)]
    first, last = list(ranks), list(ranks)
    for rank in range(1, size):
        first[rank] = torch.where(planes[rank] == planes[rank - 1], first[rank - 1], ranks[rank])
    for rank in reversed(range(size - 1)):
        last[rank] = torch.where(planes[rank] == planes[rank + 1], last[rank + 1], ranks[rank])
    return [a + b - (size - 1) for a, b in zip(first, last, strict=True)]
