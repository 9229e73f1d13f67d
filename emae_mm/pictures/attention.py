"""Where an encoder's last block with global attention looks."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.models.attention import GridAttention
from emae_mm.pictures.figure import FONT, HEAT, add_caption, bare, new_figure, save

SIDE = 1.12
"""Width of a panel in inches."""
COLUMNS = 9
"""Most panels of an image in one row."""


@dataclass(frozen=True)
class AttentionMaps:
    """Attention of one query to all patches of an image.

    Attributes:
        heads: (heads, h, w) float32, each a share of the query's attention: sums to 1, or to less where a class token
            takes the rest.
        query: (row, column) of the patch that asks, or None for the class token.
        block: number of the block, 0 the first.
    """

    heads: np.ndarray
    query: tuple[int, int] | None
    block: int


def attention_probabilities(
    attention: nn.Module,
    tokens: Tensor,
    grid: Sequence[int] | None = None,
    bias: Tensor | None = None,
    queries: Sequence[int] | None = None,
) -> Tensor:
    """Softmax of global self-attention, written out, from the module's own projection and relative positions.

    Args:
        attention: timm's ``Attention`` or :class:`~emae_mm.models.attention.GridAttention`.
        tokens: (B, n, D), what the module was given.
        grid: (H, W) of the patches, needed for relative positions of the module's own.
        bias: (1, heads, n, n), added to the logits.
        queries: tokens whose rows are computed; all by default.

    Returns:
        (B, heads, queries, n) float32; each row sums to 1.
    """
    qkv = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, attention.head_dim))
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    query, key = attention.q_norm(query), attention.k_norm(key)
    if grid is not None and isinstance(attention, GridAttention):
        query, key, _ = attention.with_positions(query, key, value, grid, grid)
    rows = slice(None) if queries is None else list(queries)
    logits = (query[:, :, rows].float() @ key.float().transpose(2, 3)) * attention.scale
    if bias is not None:
        logits = logits + bias[:, :, rows].float()
    return logits.softmax(dim=3)


class _LastGlobal:
    """Remembers what the last attention without windows was called with."""

    def __init__(self):
        self.block, self.call = -1, {}

    def hook(self, block: int):
        def remember(module: nn.Module, args: tuple, kwargs: dict) -> None:
            call = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            if call.get("window") is None:
                self.block, self.call = block, call

        return remember


@torch.no_grad()
def attention_maps(encoder: nn.Module, images: Tensor) -> list[AttentionMaps]:
    """Attention of the class token, or of the middle patch where there is none, in the last global block that runs.

    Args:
        encoder: a :class:`~emae_mm.models.vit.ViTEncoder` of any kind, in evaluation mode; dense backbones with
            windows and relative positions, too.
        images: (B, C, H, W), normalised.

    Returns:
        one :class:`AttentionMaps` an image.

    Raises:
        ConfigError: all blocks attend within windows only.
    """
    seen = _LastGlobal()
    handles = [
        block.attn.register_forward_pre_hook(seen.hook(index), with_kwargs=True)
        for index, block in enumerate(encoder.blocks)
    ]
    try:
        encoder(images)
    finally:
        for handle in handles:
            handle.remove()
    if not seen.call:
        raise ConfigError("no block of this encoder has global attention", "attention is drawn of global blocks only")
    tokens, bias = next(iter(seen.call.values())), seen.call.get("bias", seen.call.get("attn_mask"))
    grid = tuple(-(-side // encoder.patch_size) for side in images.shape[-2:])
    prefix = tokens.shape[1] - grid[0] * grid[1]
    query = None if prefix else (grid[0] // 2, grid[1] // 2)
    asked = 0 if query is None else query[0] * grid[1] + query[1]
    rows = attention_probabilities(encoder.blocks[seen.block].attn, tokens, grid, bias, [asked])[:, :, 0, prefix:]
    return [AttentionMaps(heads.unflatten(1, grid).cpu().numpy(), query, seen.block) for heads in rows]


def draw_attention(
    images: Sequence[np.ndarray], maps: Sequence[AttentionMaps], path: str | Path, caption: str = ""
) -> None:
    """Images with the attention of each head and their mean; every map has its own colour scale, from 0.

    Args:
        images: (H, W, 3) uint8 RGB, as the encoder saw them.
        maps: of the same images.
        path: the PNG.
        caption: shown below; which query, which block and the colour scale are added.
    """
    panels = 2 + max(len(each.heads) for each in maps)
    rows = -(-panels // COLUMNS)
    columns = -(-panels // rows)
    heights = [SIDE * min(image.shape[0] / image.shape[1], 1.5) for image in images for _ in range(rows)]
    figure = new_figure(SIDE * columns + 0.2, sum(heights) + 0.21 * len(heights) + 0.7)
    axes = figure.subplots(len(heights), columns, squeeze=False, gridspec_kw=dict(height_ratios=heights))
    for axis in axes.flat:
        bare(axis)
    for index, (image, each) in enumerate(zip(images, maps, strict=True)):
        first, mean, *others = axes[index * rows : (index + 1) * rows].flat
        first.imshow(image)
        first.set_title("image", fontsize=FONT)
        if each.query is not None:
            y, x = ((place + 0.5) / side for place, side in zip(each.query, each.heads.shape[1:], strict=True))
            first.plot(x * image.shape[1] - 0.5, y * image.shape[0] - 0.5, "x", color="black", ms=9, mew=3.5)
            first.plot(x * image.shape[1] - 0.5, y * image.shape[0] - 0.5, "x", color="white", ms=7.5, mew=1.5)
        titled = [("mean", each.heads.mean(0)), *((f"head {n + 1}", head) for n, head in enumerate(each.heads))]
        for axis, (title, heat) in zip([mean, *others], titled, strict=False):
            axis.imshow(heat, cmap=HEAT, vmin=0, interpolation="nearest", extent=(0, image.shape[1], image.shape[0], 0))
            axis.set_title(title, fontsize=FONT)
    asker = "the class token" if maps[0].query is None else "the patch marked with a cross"
    rule = f"Attention of {asker} to all patches in block {maps[0].block + 1}; each map from 0 (dark) to its maximum."
    add_caption(figure, "\n".join(filter(None, [rule, caption])))
    save(figure, path)
