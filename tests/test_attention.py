"""Attention with learned biases: the CPU's chunked form and the folded form against explicit matrices."""

import pytest
import torch

from emae_mm.models import biased_attention as module
from emae_mm.models.attention import GridAttention, decomposed_table, fold_positions, position_terms, segments
from emae_mm.models.biased_attention import biased_attention


def explicit(query, key, value, terms, scale):
    """The definition, with every matrix."""
    logits = query @ key.mT * scale + sum(terms).flatten(3)
    return logits.softmax(dim=3) @ value


@pytest.mark.parametrize("chunk", [1, 500, 2**20], ids=["one head", "some heads or images", "all at once"])
@pytest.mark.parametrize("shared", [False, True], ids=["decomposed", "one bias for all images"])
def test_chunks_equal_explicit_matrices(chunk, shared, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    batch, heads, queries, height, width, d = 3, 2, 6, 3, 4, 5
    shapes = [(1, heads, queries, 1, height * width)] if shared else [
        (batch, heads, queries, height, 1), (batch, heads, queries, 1, width)
    ]  # fmt: skip
    leaves = [torch.randn(batch, heads, n, d) for n in (queries, height * width, height * width)]
    leaves = [x.double() for x in leaves + [torch.randn(shape) for shape in shapes]]
    upstream = torch.randn(batch, heads, queries, d).double()
    found = []
    for function in (biased_attention, explicit):
        q, k, v, *terms = (x.clone().requires_grad_() for x in leaves)
        out = function(q, k, v, terms, 0.3)
        out.backward(upstream)
        found.append([out.detach(), *(x.grad for x in (q, k, v, *terms))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)  # float64: only the order of sums differs


def test_the_operators_keep_what_a_compiler_is_told_of_them():
    """Shapes, types and strides of the fake results are those of the real ones, for inputs in any memory order."""
    q, k, v = (torch.randn(2, 6, 2, 4).transpose(1, 2).requires_grad_() for _ in range(3))
    by_row = torch.randn(6, 2, 2, 1, 2).permute(2, 4, 0, 1, 3).requires_grad_()
    terms = [by_row, torch.randn(1, 2, 6, 1, 3, requires_grad=True)]
    done = torch.library.opcheck(module._attention, (q, k, v, terms, 0.5))
    plain = [x.detach() for x in (torch.randn(2, 2, 6, 4), q, k, v, torch.randn(2, 2, 6, 4))]
    done |= torch.library.opcheck(module._gradients, (*plain, [term.detach() for term in terms], 0.5))
    assert set(done.values()) == {"SUCCESS"}


def test_folded_positions_equal_explicit_ones():
    torch.manual_seed(0)
    queries, keys, d = (2, 3), (4, 5), 6
    query = torch.randn(2, 3, 6, d, dtype=torch.float64)
    key, value = (torch.randn(2, 3, 20, d, dtype=torch.float64) for _ in range(2))
    tables = [torch.randn(2 * size - 1, d, dtype=torch.float64) for size in keys]
    across = tuple(decomposed_table(*given) for given in zip(tables, queries, keys, strict=True))
    terms = position_terms(query, across)
    expected = torch.zeros(2, 3, 6, 20, dtype=torch.float64)
    for i in range(6):
        for j in range(20):
            down, right = i // 3 - j // 5 + keys[0] - 1, i % 3 - j % 5 + keys[1] - 1
            expected[:, :, i, j] = query[:, :, i] @ (tables[0][down] + tables[1][right])
    close = dict(rtol=1e-12, atol=1e-12)  # float64
    torch.testing.assert_close(sum(terms).flatten(3), expected, **close)
    scale = 0.4
    folded = fold_positions(query, key, value, terms, scale)
    assert folded[0].shape[3] % 8 == 0
    out = torch.nn.functional.scaled_dot_product_attention(*folded, scale=scale)
    torch.testing.assert_close(out[..., :d], explicit(query, key, value, terms, scale), **close)
    assert not out[..., d:].any()


def test_half_precision_takes_the_folded_form_and_stays_near():
    torch.manual_seed(0)
    attention = GridAttention(32, num_heads=2, qkv_bias=True)
    attention.add_decomposed_positions((4, 4))
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        torch.nn.init.normal_(table)
    tokens = torch.randn(2, 30, 32)
    full = attention(tokens, (5, 6), (4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        reduced = attention(tokens, (5, 6), (4, 4))
    assert reduced.dtype == torch.bfloat16
    assert (reduced - full).norm() / full.norm() < 0.02  # bf16 keeps 8 bits: 0.4 % a rounding


@pytest.mark.parametrize(("length", "window"), [(12, 4), (13, 4), (3, 4), (4, 4), (1, 1)])
def test_segments_cover_the_axis_once(length, window):
    places = [start + i for start, inner, number in segments(length, window) for i in range(inner * number)]
    assert places == list(range(length))
