"""Our dense models as other projects compute them: ViTDet's attention with every matrix, mmsegmentation's UperNet."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.hub import get_config
from mmseg.registry import MODELS as SEG_MODELS
from torch import Tensor, nn

from emae_mm.models.attention import GridBlock, decomposed_table
from emae_mm.models.linear import Linear
from emae_mm.models.norms import LN2d
from emae_mm.ops import roi_align


def explicit_attention(attention: nn.Module, x: Tensor) -> Tensor:
    """ViTDet's attention as detectron2 and mmdetection's project write it: (b, h, w, D) -> (b, h, w, D)."""
    b, h, w, width = x.shape
    heads = attention.num_heads
    query, key, value = attention.qkv(x).reshape(b, h * w, 3, heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
    logits = (query * attention.scale) @ key.mT
    grid = query.unflatten(1, (h, w))
    by_row = torch.einsum("bhwc,hkc->bhwk", grid, decomposed_table(attention.rel_pos_h, h, h))
    by_column = torch.einsum("bhwc,wkc->bhwk", grid, decomposed_table(attention.rel_pos_w, w, w))
    logits = (logits.unflatten(1, (h, w)).unflatten(3, (h, w)) + by_row[..., None] + by_column[..., None, :]).reshape(
        b * heads, h * w, h * w
    )
    mixed = logits.softmax(dim=-1) @ value
    return attention.proj(mixed.reshape(b, heads, h, w, -1).permute(0, 2, 3, 1, 4).reshape(b, h, w, width))


class ExplicitBlock(GridBlock):
    """ViTDet's block as those projects write it: tokens are padded before they are projected."""

    def forward(self, x: Tensor, grid, window, bias) -> Tensor:
        batch, _, width = x.shape
        y = self.norm1(x).unflatten(1, grid)
        if window is None:
            y = explicit_attention(self.attn, y)
        else:
            height, across = (-side % window[0] + side for side in grid)
            y = F.pad(y, (0, 0, 0, across - grid[1], 0, height - grid[0]))
            cut = (batch, height // window[0], window[0], across // window[1], window[1], width)
            y = explicit_attention(self.attn, y.reshape(cut).transpose(2, 3).reshape(-1, *window, width))
            y = y.reshape(batch, cut[1], cut[3], *window, width).transpose(2, 3).reshape(batch, height, across, width)
            y = y[:, : grid[0], : grid[1]]
        x = x + self.drop_path1(self.ls1(y.reshape(x.shape)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class BareBlock(GridBlock):
    """No windows, no positions, no padding: as many tokens attend to as many others, in the order they lie in.

    What a windowed block would cost if its tokens came in whole windows; the rest of the tokens is one group.
    """

    def forward(self, x: Tensor, grid, window, bias) -> Tensor:
        qkv = self.attn.qkv(self.norm1(x)).unflatten(2, (3, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        size = x.shape[1] if window is None else window[0] * window[1]
        whole = x.shape[1] // size * size
        groups = [qkv[..., :whole, :].unflatten(3, (-1, size)).transpose(2, 3).flatten(1, 2)]
        mixed = [F.scaled_dot_product_attention(*group).unflatten(0, (len(x), -1)) for group in groups]
        mixed = [y.transpose(2, 3).flatten(3).flatten(1, 2) for y in mixed]
        if whole < x.shape[1]:
            rest = F.scaled_dot_product_attention(*qkv[..., whole:, :])
            mixed.append(rest.transpose(1, 2).flatten(2))
        x = x + self.drop_path1(self.ls1(self.attn.proj(torch.cat(mixed, dim=1))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def with_blocks(backbone: nn.Module, kind: type[GridBlock]) -> None:
    """Let a backbone's blocks compute as ``kind`` does; parameters stay."""
    for block in backbone.blocks:
        block.__class__ = kind


def with_torch_linear(model: nn.Module) -> None:
    """Take our linear layers' faster product away: what the other projects run."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = nn.Linear


class WrittenOutNorm(LN2d):
    """The channel norm as detectron2 and mmdetection's project write it."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=1, keepdim=True)
        variance = (x - mean).pow(2).mean(dim=1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def with_written_out_norms(model: nn.Module) -> None:
    """Let channel norms compute as :class:`WrittenOutNorm` does."""
    for module in model.modules():
        if type(module) is LN2d:
            module.__class__ = WrittenOutNorm


@contextmanager
def as_torchvision() -> Iterator[None]:
    """RoIAlign by torchvision's operator as it is, which uses one thread on a CPU."""
    with patch.object(roi_align, "_threads", lambda: 1):
        yield


# Our names of UperNet's parameters -> mmsegmentation's.
RENAMED = [
    (r"backbone\.patch_embed\.proj\.", "backbone.patch_embed.projection."),
    (r"backbone\.blocks\.(\d+)\.norm([12])\.", r"backbone.layers.\1.ln\2."),
    (r"backbone\.blocks\.(\d+)\.ls([12])\.gamma", r"backbone.layers.\1.gamma_\2"),
    (r"backbone\.blocks\.(\d+)\.mlp\.fc1\.", r"backbone.layers.\1.ffn.layers.0.0."),
    (r"backbone\.blocks\.(\d+)\.mlp\.fc2\.", r"backbone.layers.\1.ffn.layers.1."),
    (r"backbone\.blocks\.(\d+)\.attn\.", r"backbone.layers.\1.attn."),
    (r"backbone\.rel_pos\.(\d+)\.table", r"backbone.layers.\1.attn.relative_position_bias_table"),
    (r"neck\.scales\.0\.", "neck.upsample_4x."),
    (r"neck\.scales\.1\.", "neck.upsample_2x.0."),
]


def mmseg_upernet(ours: nn.Module) -> nn.Module:
    """mmsegmentation's own model of MAE's UperNet with ViT-B at 512 pixels, with the weights of ours."""
    MODULE2PACKAGE["mmseg"] = "mmseg"  # mmengine looks for the distribution by the name of the original
    spec = get_config("mmseg::mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py").model
    spec.pop("pretrained")
    spec.backbone.drop_path_rate = spec.decode_head.dropout_ratio = spec.auxiliary_head.dropout_ratio = 0.0
    theirs = SEG_MODELS.build(spec)
    weights = {}
    for name, tensor in ours.state_dict().items():
        for pattern, replacement in RENAMED:
            name = re.sub(f"^{pattern}", replacement, name)
        weights[name] = tensor
    missing, surplus = theirs.load_state_dict(weights, strict=False)
    unmatched = [name for name in missing if not name.endswith("relative_position_index")] + list(surplus)
    if unmatched:
        raise SystemExit(f"these parameters have no counterpart: {unmatched[:5]}")
    return theirs
