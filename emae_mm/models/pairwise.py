"""The sum of all pairwise distances between few values at many places, by a sorting network."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def full_precision(tensor: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


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

    Inputs: values (B, m, ...) floating point with m < 128; or (B, G, ...) and ``planes``, m lists of equally many
    places along dimension 1 each: the r-th values to be compared are those at the places of the r-th list. Output: a
    scalar, at least in float32.
    """

    CHUNK_ELEMENTS = 1 << 19  # keeps a chunk's planes inside a CPU's last-level cache

    @staticmethod
    def forward(ctx, values: Tensor, planes: list[list[int]] | None = None) -> Tensor:
        planes = planes or [[place] for place in range(values.shape[1])]
        places = [torch.tensor(plane, device=values.device) for plane in planes]
        factors = torch.empty_like(values, dtype=torch.int8, memory_format=torch.contiguous_format)
        total = values.new_zeros((), dtype=torch.promote_types(values.dtype, torch.float32))
        for chunk, factor in _chunks(values.flatten(2), factors.flatten(2), SumOfPairwiseDistances.CHUNK_ELEMENTS):
            total = total + _pairwise_factors(chunk, factor, places)
        ctx.save_for_backward(factors)
        ctx.dtype = values.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (factors,) = ctx.saved_tensors
        return factors.to(ctx.dtype) * grad.to(ctx.dtype), None


def _chunks(values: Tensor, factors: Tensor, elements: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of views of (B, G, R) tensors, of about ``elements`` elements each.

    Only on a CPU: on an accelerator, and for a compiler, one large piece is better than many small ones.
    """
    batch, places, rest = values.shape
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        yield values, factors
        return
    columns = min(rest, max(1, elements // places))
    images = max(1, elements // (places * columns))
    for start in range(0, batch, images):
        for left in range(0, rest, columns):
            piece = (slice(start, start + images), slice(None), slice(left, left + columns))
            yield values[piece], factors[piece]


def _pairwise_factors(values: Tensor, out: Tensor, places: list[Tensor]) -> Tensor:
    """Write each value's factor into ``out`` and return the sum of factor times value."""
    planes = [full_precision(values.index_select(1, place)) for place in places]
    network = sorting_network(len(planes))
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
    for place, factor in zip(places, factors, strict=True):
        out.index_copy_(1, place, factor)
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
