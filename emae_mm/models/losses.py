"""Losses of masked image modelling: pixel reconstruction, self-consistency, agreement with a teacher.

All losses are computed in float32 when the model runs in half precision, otherwise in the model's own precision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from emae_mm.errors import ConfigError
from emae_mm.models.pairwise import SumOfPairwiseDistances, full_precision

PIXEL_EPS = 1e-6
CONSISTENCY_NORMS = ("overlap", "allpos")


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


def hidden_reconstruction_loss(predictions: Tensor, targets: Tensor, ids_hidden: Tensor) -> Tensor:
    """:func:`reconstruction_loss` of predictions that exist for hidden patches only.

    Args:
        predictions: (B, K, m, P).
        targets: (B, N, P), shared by the parts.
        ids_hidden: (B, K, m) int64, the patch each prediction is of.

    Returns:
        scalar.
    """
    return HiddenSquaredError.apply(predictions, targets, ids_hidden) / predictions.numel()


class HiddenSquaredError(torch.autograd.Function):
    """Sum of squared differences to the patches ``ids_hidden`` of the targets.

    Goes part by part and keeps nothing for the backward pass that is not there already, so that the targets are never
    copied K times. Inputs as for :func:`hidden_reconstruction_loss`; gradients for the predictions only.
    """

    @staticmethod
    def forward(ctx, predictions: Tensor, targets: Tensor, ids_hidden: Tensor) -> Tensor:
        ctx.save_for_backward(predictions, targets, ids_hidden)
        total = targets.new_zeros(())
        for part in range(predictions.shape[1]):
            total = total + _difference(predictions, targets, ids_hidden, part).square().sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        predictions, targets, ids_hidden = ctx.saved_tensors
        gradient = torch.empty_like(predictions)
        for part in range(predictions.shape[1]):
            gradient[:, part] = _difference(predictions, targets, ids_hidden, part) * (2 * grad)
        return gradient, None, None


def _difference(predictions: Tensor, targets: Tensor, ids_hidden: Tensor, part: int) -> Tensor:
    index = ids_hidden[:, part].unsqueeze(-1).expand(-1, -1, targets.shape[-1])
    return full_precision(predictions[:, part]) - targets.gather(1, index)


def teacher_loss(predictions: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared difference to a teacher's predictions of the same hidden patches (RC-MAE).

    Args:
        predictions: (B, K, m, P), the student's.
        wanted: (B, K, m, P), the teacher's, without a gradient.

    Returns:
        scalar.
    """
    return F.mse_loss(full_precision(predictions), full_precision(wanted))


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
    _check_norm(norm)
    mean_distance = _disjoint_distance if partitions else _pairwise_distance
    distance = mean_distance(predictions, mask, norm)
    return distance + distance.detach()


def runs_consistency_loss(predictions: Tensor, norm: str = "overlap") -> Tensor:
    """:func:`self_consistency_loss` of disjoint parts whose predictions exist for hidden patches only.

    Args:
        predictions: (B, K, (K-1)*n, P): part i's predictions of n patches of part 0, of part 1 and so on, its own left
            out, as :meth:`ParallelMasking.groups` orders them. Which patches they are need not be known.
        norm: see there.

    Returns:
        scalar; exactly 0 without a gradient for K = 2.
    """
    _check_norm(norm)
    batch, parts, hidden, pixels = predictions.shape
    if parts < 3:
        return full_precision(predictions).new_zeros(())
    runs = predictions.reshape(batch, parts * (parts - 1), hidden // (parts - 1), pixels)
    distance = SumOfPairwiseDistances.apply(runs, _planes_of_runs(parts))
    distance = distance / _compared(batch, parts, parts * runs.shape[2], pixels, norm)
    return distance + distance.detach()


def _check_norm(norm: str) -> None:
    if norm not in CONSISTENCY_NORMS:
        raise ConfigError(f"sc_norm={norm!r} is unknown", f"use one of {CONSISTENCY_NORMS}")


def _compared(batch: int, parts: int, patches: int, pixels: int, norm: str) -> float:
    """By what the sum of all distances between disjoint parts is divided."""
    positions = patches * (parts - 2) / parts if norm == "overlap" else patches
    return batch * positions * pixels * (parts * (parts - 1) // 2)


def _planes_of_runs(parts: int) -> list[list[int]]:
    """For each rank r of K-1 and each part j, the run that is the r-th other part's prediction of part j's patches.

    Part i's run of part j's patches is its j-th, or the one before where its own would have come first.
    """
    planes = []
    for rank in range(parts - 1):
        runs = []
        for seen in range(parts):
            part = rank + 1 if rank >= seen else rank
            runs.append(part * (parts - 1) + (seen - 1 if seen > part else seen))
        planes.append(runs)
    return planes


def _pairwise_distance(predictions: Tensor, mask: Tensor, norm: str) -> Tensor:
    """Mean over pairs of mean |p_i - p_j|, for masks whose overlaps may differ."""
    parts, patches = mask.shape[1:]
    predictions = full_precision(predictions)
    total = predictions.new_zeros(())
    for i in range(parts):
        for j in range(i + 1, parts):
            shared = mask[:, i] * mask[:, j]
            distance = (predictions[:, i] - predictions[:, j]).abs().mean(dim=-1)
            positions = shared.sum(dim=1) if norm == "overlap" else shared.new_full((), patches)
            total = total + ((distance * shared).sum(dim=1) / positions.clamp(min=1)).mean()
    return total / max(parts * (parts - 1) // 2, 1)


def _disjoint_distance(predictions: Tensor, mask: Tensor, norm: str) -> Tensor:
    """The same mean when the parts partition the image, in O(K log K) per pixel."""
    batch, parts, patches, pixels = predictions.shape
    if parts < 3:
        return full_precision(predictions).new_zeros(())
    # The one part that sees a position is left out there: its prediction of that position is never compared.
    seen_by = mask.argmin(dim=1, keepdim=True)
    others = torch.arange(parts - 1, device=mask.device).view(1, -1, 1)
    others = others + (others >= seen_by)
    hidden = predictions.gather(1, others.unsqueeze(-1).expand(-1, -1, -1, pixels))
    return SumOfPairwiseDistances.apply(hidden) / _compared(batch, parts, patches, pixels, norm)
