"""Attention with learned biases on a CPU, whose memory grows with the tokens, not with their square.

torch's fused kernel for CPUs takes a bias, but gives it no gradient: with a learned one torch falls back to explicit
matrices, all of them kept for the backward pass. Here the forward pass is the fused kernel, and the backward pass
computes the matrices of a few heads at a time anew, in pieces that stay in the cache.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 2**20
"""Elements of the matrices (queries x keys) computed at a time: 4 MiB in float32."""


def _own(term: Tensor, images: slice) -> slice:
    """A term's images: all images may share one bias."""
    return images if len(term) > 1 else slice(None)


def _chunks(batch: int, heads: int, matrix: int) -> Iterator[tuple[slice, slice]]:
    """Images and heads whose matrices, of that many elements each, are computed together."""
    images, some = max(1, CHUNK // (matrix * heads)), min(heads, max(1, CHUNK // matrix))
    for image in range(0, batch, images):
        for head in range(0, heads, some):
            yield slice(image, image + images), slice(head, head + some)


# Custom operators, so that a compiler leaves them alone.
@torch.library.custom_op("emae_mm::biased_attention", mutates_args=(), device_types="cpu")
def _attention(query: Tensor, key: Tensor, value: Tensor, terms: list[Tensor], scale: float) -> Tensor:
    out = torch.empty(query.shape, dtype=query.dtype)
    for at in _chunks(*query.shape[:2], query.shape[2] * key.shape[2]):
        bias = sum(term[_own(term, at[0]), at[1]] for term in terms).flatten(3)
        out[at] = F.scaled_dot_product_attention(query[at], key[at], value[at], attn_mask=bias, scale=scale)
    return out


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, terms: list[Tensor], scale: float) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.custom_op("emae_mm::biased_attention_backward", mutates_args=(), device_types="cpu")
def _gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, terms: list[Tensor], scale: float
) -> list[Tensor]:
    for_query, for_key, for_value = (torch.empty(x.shape, dtype=x.dtype) for x in (query, key, value))
    for_terms = [torch.zeros(term.shape, dtype=term.dtype) for term in terms]  # contiguous, as the fake ones
    grid = torch.broadcast_shapes(*(term.shape[3:] for term in terms))
    inner = (grad * out).sum(dim=3, keepdim=True)
    for at in _chunks(*query.shape[:2], query.shape[2] * key.shape[2]):
        q, k, upstream = query[at] * scale, key[at], grad[at]
        logits = (q @ k.mT).unflatten(3, grid)
        for term in terms:
            logits += term[_own(term, at[0]), at[1]]
        weights = logits.flatten(3).softmax(dim=3)
        for_value[at] = weights.mT @ upstream
        for_logits = (upstream @ value[at].mT).sub_(inner[at]).mul_(weights)
        for_query[at] = (for_logits @ k).mul_(scale)
        for_key[at] = for_logits.mT @ q
        for term, gathered in zip(terms, for_terms, strict=True):
            place = gathered[_own(term, at[0]), at[1]]
            place += for_logits.unflatten(3, grid).sum_to_size(place.shape)
    return [for_query, for_key, for_value, *for_terms]


@_gradients.register_fake
def _(grad, query, key, value, out, terms, scale):
    return [x.new_empty(x.shape) for x in (query, key, value, *terms)]


def _keep(ctx, inputs: tuple, output: Tensor) -> None:
    query, key, value, terms, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, output, *terms)


def _backward(ctx, grad: Tensor) -> tuple:
    query, key, value, out, *terms = ctx.saved_tensors
    for_query, for_key, for_value, *for_terms = _gradients(grad, query, key, value, out, terms, ctx.scale)
    return for_query, for_key, for_value, for_terms, None


_attention.register_autograd(_backward, setup_context=_keep)


def serves(query: Tensor) -> bool:
    """Whether :func:`biased_attention` is for these heads: float32 or float64 on a CPU."""
    return query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64)


def biased_attention(query: Tensor, key: Tensor, value: Tensor, terms: list[Tensor], scale: float) -> Tensor:
    """``softmax(query @ key.T * scale + bias) @ value``, with gradients for all.

    Args:
        query: (B, heads, n, d).
        key, value: (B, heads, H*W, d).
        terms: what the bias is the sum of; each (B or 1, heads, n, H or 1, W or 1), together of every key's place.
        scale: of the products.

    Returns:
        (B, heads, n, d).
    """
    return _attention(query, key, value, terms, scale)
