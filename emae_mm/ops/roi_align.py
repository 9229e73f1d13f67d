"""RoIAlign through torchvision's operators, in the calling convention of mmcv's compiled extension.

mmcv hands in the tensors to be written. Average pooling is torchvision's operator itself. For maximum pooling each
sample of a bin is taken as a bin of its own, with one sample, and the largest sample is kept.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
import torchvision  # noqa: F401  (registers torch.ops.torchvision)
from torch import Tensor

MAX, AVERAGE = 0, 1
# What mmcv starts its search for the maximum from, and therefore returns for a region without any sample.
EMPTY_MAXIMUM = -10000.0


def _computable(tensor: Tensor) -> Tensor:
    """What torchvision's kernels take: every floating type but bfloat16, which becomes float32."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def _threads() -> int:
    """Threads that share the channels of a map on a CPU, where torchvision's kernels use one."""
    return torch.get_num_threads()


def _by_channels(kernel: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``kernel(x)``, whose channels (dimension 1, in and out) do not mix, on all of the CPU's threads."""
    threads = min(_threads(), x.shape[1])
    if x.device.type != "cpu" or threads < 2 or not x.numel():
        return kernel(x)
    # made for each call: a pool that a process inherits when it is forked has no threads
    with ThreadPoolExecutor(threads) as pool:
        return torch.cat(list(pool.map(kernel, x.chunk(threads, dim=1))), dim=1)


def _sample_grids(rois: Tensor, bins: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """Samples per bin along y and x for each region (R, 2): ``ratio``, or one per feature-map cell where that is 0."""
    if ratio > 0:
        return torch.full((len(rois), 2), ratio, dtype=torch.long, device=rois.device)
    # half a cell taken from both ends cancels, but not in rounding: the number of samples must be the kernel's
    x1, y1, x2, y2 = (rois[:, 1:] * scale - (0.5 if aligned else 0.0)).unbind(dim=1)
    sides = torch.stack([y2 - y1, x2 - x1], dim=1)
    if not aligned:
        sides = sides.clamp(min=1)
    return (sides / torch.tensor(bins, dtype=rois.dtype, device=rois.device)).ceil().long()


def _groups(grids: Tensor) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """The distinct sample grids and the indices of the regions that have them."""
    distinct, which = grids.unique(dim=0, return_inverse=True)
    for i, grid in enumerate(distinct.tolist()):
        yield tuple(grid), (which == i).nonzero().flatten()


def _bins_last(samples: Tensor, bins: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(R, C, ph*gh, pw*gw) -> (R, C, ph, pw, gh*gw)."""
    regions, channels = samples.shape[:2]
    split = samples.reshape(regions, channels, bins[0], grid[0], bins[1], grid[1])
    return split.transpose(3, 4).reshape(regions, channels, *bins, grid[0] * grid[1])


def _bins_inside(samples: Tensor, bins: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`_bins_last`."""
    regions, channels = samples.shape[:2]
    split = samples.reshape(regions, channels, bins[0], bins[1], grid[0], grid[1])
    return split.transpose(3, 4).reshape(regions, channels, bins[0] * grid[0], bins[1] * grid[1])


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the pooled features of every region into ``output``.

    Args:
        input: (B, C, H, W), floating, on the CPU or a GPU.
        rois: (R, 5) of the same type: image index, x1, y1, x2, y2 in the image's pixels.
        output: (R, C, aligned_height, aligned_width), written in place.
        argmax_y: like ``output`` for maximum pooling, otherwise empty. mmcv keeps the winning sample's coordinates
            here and in ``argmax_x``; this stand-in keeps its number within the bin, -1 for none. Only
            :func:`roi_align_backward` reads it.
        argmax_x: not used.
        aligned_height: bins along y.
        aligned_width: bins along x.
        spatial_scale: feature-map cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 takes one per feature-map cell.
        pool_mode: 0 maximum, 1 average.
        aligned: shift regions by half a cell, so that cell centres are where the image's pixels are.
    """
    bins, input, rois = (aligned_height, aligned_width), _computable(input), _computable(rois)
    if pool_mode == AVERAGE:
        align = torch.ops.torchvision.roi_align
        output.copy_(_by_channels(lambda x: align(x, rois, spatial_scale, *bins, sampling_ratio, aligned), input))
        return
    output.fill_(EMPTY_MAXIMUM)
    argmax_y.fill_(-1)
    for grid, regions in _groups(_sample_grids(rois, bins, spatial_scale, sampling_ratio, aligned)):
        if min(grid) > 0:
            size = (bins[0] * grid[0], bins[1] * grid[1])
            samples = torch.ops.torchvision.roi_align(input, rois[regions], spatial_scale, *size, 1, aligned)
            values, winners = _bins_last(samples, bins, grid).max(dim=-1)
            output[regions] = values.to(output.dtype)
            argmax_y[regions] = winners.to(argmax_y.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient with respect to the feature map into ``grad_input`` (B, C, H, W).

    Args:
        grad_output: (R, C, aligned_height, aligned_width), contiguous.
        rois: as in :func:`roi_align_forward`, and so are the remaining arguments.
        argmax_y: what the forward pass wrote there.
        argmax_x: not used.
        grad_input: written in place.
        aligned_height: bins along y.
        aligned_width: bins along x.
        spatial_scale: feature-map cells per image pixel.
        sampling_ratio: samples per bin and axis; 0 takes one per feature-map cell.
        pool_mode: 0 maximum, 1 average.
        aligned: as in the forward pass.
    """
    bins, shape = (aligned_height, aligned_width), grad_input.shape
    grad_output, rois = _computable(grad_output), _computable(rois)
    backward = torch.ops.torchvision._roi_align_backward
    if pool_mode == AVERAGE:
        batch, _, *size = shape

        def scatter(grad: Tensor) -> Tensor:
            return backward(grad, rois, spatial_scale, *bins, batch, grad.shape[1], *size, sampling_ratio, aligned)

        grad_input.copy_(_by_channels(scatter, grad_output))
        return
    total = grad_output.new_zeros(shape)
    for grid, regions in _groups(_sample_grids(rois, bins, spatial_scale, sampling_ratio, aligned)):
        if min(grid) > 0:
            winners = argmax_y[regions].long().unsqueeze(-1)
            samples = grad_output.new_zeros(*winners.shape[:-1], grid[0] * grid[1])
            samples.scatter_(-1, winners, grad_output[regions].unsqueeze(-1))
            size = (bins[0] * grid[0], bins[1] * grid[1])
            inside = _bins_inside(samples, bins, grid)
            total += backward(inside, rois[regions], spatial_scale, *size, *shape, 1, aligned)
    grad_input.copy_(total)
