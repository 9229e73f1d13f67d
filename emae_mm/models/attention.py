"""Self-attention on the patch grid of a dense backbone: over the whole image or in windows, with relative positions."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn

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


def fold_positions(
    query: Tensor, key: Tensor, value: Tensor, across: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Decomposed relative positions as further channels, so that a fused kernel needs no n x n bias.

    The bias ``q . R_h[y, y'] + q . R_w[x, x']`` of ViTDet is the inner product of the query's two vectors of products
    with one-hot codes of the key's row and column. Memory grows with n * (H + W) in place of n * n.

    Args:
        query: (B, heads, h*w, d).
        key, value: (B, heads, H*W, d).
        across: ``R_h`` (h, H, d) and ``R_w`` (w, W, d), see :func:`decomposed_table`.

    Returns:
        query, key and value with d + H + W channels, rounded up to a multiple of 8; attention with the scale of d
        channels gives the values' d channels and zeros.
    """
    (rows, height, d), (columns, width, _) = across[0].shape, across[1].shape
    grid = query.unflatten(2, (rows, columns))
    root = d**0.5  # undoes the attention's scale, which positions do not have
    by_row = torch.einsum("bnyxd,yjd->bnyxj", grid, (across[0] * root).to(query.dtype)).flatten(2, 3)
    by_column = torch.einsum("bnyxd,xjd->bnyxj", grid, (across[1] * root).to(query.dtype)).flatten(2, 3)
    extra = height + width
    unused = -(d + extra) % ALIGNMENT
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
    return query, key, F.pad(value, (0, extra + unused))


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

    def with_positions(
        self, query: Tensor, key: Tensor, value: Tensor, queries: Sequence[int], keys: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Heads' queries, keys and values with relative positions folded in, where there are any.

        Args:
            query: (B, heads, h*w, d).
            key, value: (B, heads, H*W, d).
            queries: (h, w), the grid of the queries: the upper left part of the keys' grid.
            keys: (H, W).

        Returns:
            tensors for which ``softmax(query @ key.T * self.scale) @ value`` is the attention, in the first d channels.
        """
        if self.rel_pos_h is None:
            return query, key, value
        across = (
            decomposed_table(self.rel_pos_h, queries[0], keys[0]),
            decomposed_table(self.rel_pos_w, queries[1], keys[1]),
        )
        return fold_positions(query, key, value, across)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        queries: Sequence[int],
        keys: Sequence[int],
        bias: Tensor | None,
    ) -> Tensor:
        """Attention of heads, see :meth:`with_positions`; ``bias`` is added to the logits. -> (B, heads, h*w, d)."""
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
