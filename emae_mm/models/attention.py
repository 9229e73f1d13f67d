"""Self-attention on the patch grid of a dense backbone: over the whole image or in windows, with relative positions."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

from emae_mm.models.biased_attention import biased_attention, serves

ALIGNMENT = 8
"""Fused attention kernels of GPUs want head dimensions that are multiples of this."""


def decomposed_table(table: Tensor, queries: int, keys: int) -> Tensor:
    """ViTDet's relative position embeddings of one axis for the first ``queries`` of ``keys`` places.

    Args:
        table: (2*size - 1, d), one row for each offset; resampled linearly if it was made for another ``size``.
        queries: places that ask, at most ``keys``.
        keys: places that answer.

    Returns:
        (queries, keys, d), row ``i - j + keys - 1`` of the table at [i, j].
    """
    if len(table) != 2 * keys - 1:
        table = F.interpolate(table.float().T.unsqueeze(0), size=2 * keys - 1, mode="linear")[0].T.to(table.dtype)
    place = torch.arange(keys, device=table.device)
    return table[place[:queries, None] - place + keys - 1]


def position_terms(query: Tensor, across: tuple[Tensor, Tensor]) -> list[Tensor]:
    """ViTDet's bias ``q . R_h[y, y'] + q . R_w[x, x']`` as two terms that broadcast to every key.

    Args:
        query: (B, heads, h*w, d).
        across: ``R_h`` (h, H, d) and ``R_w`` (w, W, d), see :func:`decomposed_table`.

    Returns:
        (B, heads, h*w, H, 1) and (B, heads, h*w, 1, W).
    """
    rows, columns = (table.to(query.dtype) for table in across)
    grid = query.unflatten(2, (len(rows), len(columns)))
    by_row = torch.einsum("bnyxd,yjd->bnyxj", grid, rows).flatten(2, 3)
    by_column = torch.einsum("bnyxd,xjd->bnyxj", grid, columns).flatten(2, 3)
    return [by_row.unsqueeze(4), by_column.unsqueeze(3)]


def fold_positions(
    query: Tensor, key: Tensor, value: Tensor, terms: Sequence[Tensor], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Decomposed relative positions as further channels, so that a fused kernel needs no n x n bias.

    The bias is the inner product of the query's two terms with one-hot codes of the key's row and column. Memory grows
    with n * (H + W) in place of n * n.

    Args:
        query: (B, heads, n, d).
        key, value: (B, heads, H*W, d).
        terms: from :func:`position_terms`.
        scale: of the attention's products, which positions do not have.

    Returns:
        query, key and value with d + H + W channels, rounded up to a multiple of 8; attention with that scale gives the
        values' d channels and zeros.
    """
    by_row, by_column = terms[0].squeeze(4) / scale, terms[1].squeeze(3) / scale
    height, width = by_row.shape[3], by_column.shape[3]
    unused = -(query.shape[3] + height + width) % ALIGNMENT
    codes = torch.cat(
        [
            torch.eye(height, dtype=key.dtype, device=key.device).repeat_interleave(width, dim=0),
            torch.eye(width, dtype=key.dtype, device=key.device).repeat(height, 1),
            key.new_zeros(height * width, unused),
        ],
        dim=1,
    )
    query = torch.cat([query, by_row, by_column, query.new_zeros(*query.shape[:3], unused)], dim=3)
    key = torch.cat([key, codes.expand(*key.shape[:2], -1, -1)], dim=3)
    return query, key, F.pad(value, (0, height + width + unused))


def segments(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """An axis cut into windows: (start, places of a window within the axis, number of such windows)."""
    whole, rest = divmod(length, window)
    if whole:
        yield 0, window, whole
    if rest:
        yield whole * window, rest, 1


def _cut(x: Tensor, height: int, width: int) -> Tensor:
    """(B, m*height, n*width, heads, d) -> (B*m*n, heads, height*width, d)."""
    x = x.unflatten(2, (-1, width)).unflatten(1, (-1, height)).permute(0, 1, 3, 5, 2, 4, 6)
    return x.reshape(-1, x.shape[3], height * width, x.shape[6])


class GridAttention(Attention):
    """timm's ``Attention`` (and its parameters' names) for tokens that lie on a grid.

    Args:
        *args, **kwargs: see timm's.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_parameter("rel_pos_h", None)
        self.register_parameter("rel_pos_w", None)

    def add_decomposed_positions(self, size: Sequence[int]) -> None:
        """Give it ViTDet's relative positions for a grid or a window of (H, W), starting at zero."""
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size[0] - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size[1] - 1, self.head_dim))

    def terms(self, query: Tensor, queries: Sequence[int], keys: Sequence[int], bias: Tensor | None) -> list[Tensor]:
        """What is added to the logits, each broadcasting to (B, heads, h*w, H, W); nothing without positions.

        Args:
            query: (B, heads, h*w, d).
            queries: (h, w), the grid of the queries: the upper left part of the keys' grid.
            keys: (H, W).
            bias: (1, heads, n, m), or None.
        """
        if self.rel_pos_h is None:
            return [] if bias is None else [bias.unsqueeze(3)]
        across = (
            decomposed_table(self.rel_pos_h, queries[0], keys[0]),
            decomposed_table(self.rel_pos_w, queries[1], keys[1]),
        )
        return position_terms(query, across)

    def with_positions(
        self, query: Tensor, key: Tensor, value: Tensor, queries: Sequence[int], keys: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Heads (B, heads, n, d) with decomposed positions folded in, where there are any; see :func:`fold_positions`.

        Returns:
            tensors for which ``softmax(query @ key.T * self.scale) @ value`` is the attention, in the first d channels.
        """
        if self.rel_pos_h is None:
            return query, key, value
        return fold_positions(query, key, value, self.terms(query, queries, keys, None), self.scale)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        queries: Sequence[int],
        keys: Sequence[int],
        bias: Tensor | None,
    ) -> Tensor:
        """Attention of heads (B, heads, n, d); see :meth:`terms`."""
        if serves(query) and (terms := self.terms(query, queries, keys, bias)):
            return biased_attention(query, key, value, terms, self.scale)
        d = value.shape[3]
        query, key, value = self.with_positions(query, key, value, queries, keys)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)[..., :d]

    def forward(
        self, tokens: Tensor, grid: Sequence[int], window: Sequence[int] | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Self-attention over everything, or within non-overlapping windows.

        The grid's last windows may reach over its right and bottom edge: zero tokens stand there, as in ViTDet. They
        take part as keys (their keys and values are the biases), but nothing is computed for them.

        Args:
            tokens: (B, H*W, D), row-major; one more, the class token, first, where there is one (not in windows).
            grid: (H, W).
            window: (h, w), height and width of a window in tokens; None for none.
            bias: added to the logits, (1, heads, n, n) with n the number of ``tokens``, or of those of a window.

        Returns:
            of ``tokens``' shape.
        """
        qkv = self.qkv(tokens).unflatten(2, (3, self.num_heads, self.head_dim))
        if window is None:
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            mixed = self.attend(query, key, value, grid, grid, bias).transpose(1, 2)
        else:
            mixed = self._in_windows(qkv.unflatten(1, tuple(grid)), window, bias).flatten(1, 2)
        return self.proj(mixed.flatten(2))

    def _in_windows(self, qkv: Tensor, window: Sequence[int], bias: Tensor | None) -> Tensor:
        """(B, H, W, 3, heads, d) -> (B, H, W, heads, d). Windows are grouped by how much of them is in the grid."""
        (height, width), (h, w) = qkv.shape[1:3], window
        query, key, value = self._padded(qkv, -height % h, -width % w).unbind(3)
        rows = []
        for top, inner_h, down in segments(height, h):
            row = []
            for left, inner_w, across in segments(width, w):
                asking = query[:, top : top + down * inner_h, left : left + across * inner_w]
                keys, values = (x[:, top : top + down * h, left : left + across * w] for x in (key, value))
                shown = None
                if bias is not None:
                    shown = bias.unflatten(2, (h, w))[:, :, :inner_h, :inner_w].flatten(2, 3)
                mixed = self.attend(
                    _cut(asking, inner_h, inner_w),
                    _cut(keys, h, w),
                    _cut(values, h, w),
                    (inner_h, inner_w),
                    (h, w),
                    shown,
                )
                mixed = mixed.reshape(-1, down, across, mixed.shape[1], inner_h, inner_w, mixed.shape[3])
                row.append(mixed.permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2))
            rows.append(torch.cat(row, dim=2) if len(row) > 1 else row[0])
        return torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]

    def _padded(self, qkv: Tensor, below: int, right: int) -> Tensor:
        """The grid with zero tokens below and to the right: what the projection makes of zero is its bias."""
        if not below and not right:
            return qkv
        batch, height, width, *heads = qkv.shape
        fill = torch.zeros_like(qkv[0, 0, 0]) if self.qkv.bias is None else self.qkv.bias.to(qkv.dtype).reshape(heads)
        padded = fill.expand(batch, height + below, width + right, *heads).clone()
        padded[:, :height, :width] = qkv
        return padded


class GridBlock(Block):
    """timm's transformer ``Block`` (and its parameters' names) for tokens on a grid.

    Args:
        *args, **kwargs: see timm's, ``attn_layer`` excepted.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, attn_layer=GridAttention, **kwargs)

    def forward(self, x: Tensor, grid: Sequence[int], window: Sequence[int] | None, bias: Tensor | None) -> Tensor:
        """(B, n, D) -> (B, n, D); see :meth:`GridAttention.forward`."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), grid, window, bias)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
