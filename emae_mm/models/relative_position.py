"""Learned relative position biases of dense backbones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import gen_relative_position_index
from torch import Tensor, nn

CLS_ENTRIES = 3
"""Further table rows with a class token: class to patches, patches to class, class to itself (as in BEiT)."""


class RelativePositionBias(nn.Module):
    """One bias per head and pair of relative offsets, starting at zero.

    The zero start makes a model with biases equal to the pre-trained one without them.

    Args:
        grid_size: (H, W) of the patches the table is stored for.
        num_heads: attention heads.
        cls_token: whether a class token precedes the patches.
        resample: what to do for another grid: True: resample the table bicubically (attention over whole images, whose
            positions are resampled too); False: keep offsets in patches and leave out those that do not occur (windows
            clipped at a small image); larger grids are then refused.
    """

    def __init__(self, grid_size: Sequence[int], num_heads: int, cls_token: bool = False, resample: bool = True):
        super().__init__()
        self.grid_size, self.cls_token, self.resample = tuple(grid_size), cls_token, resample
        height, width = self._offsets(self.grid_size)
        self.table = nn.Parameter(torch.zeros(height * width + CLS_ENTRIES * cls_token, num_heads))
        index = gen_relative_position_index(self.grid_size, class_token=cls_token)
        self.register_buffer("index", index, persistent=False)

    @staticmethod
    def _offsets(grid_size: Sequence[int]) -> tuple[int, int]:
        return 2 * grid_size[0] - 1, 2 * grid_size[1] - 1

    def forward(self, grid_size: Sequence[int]) -> Tensor:
        """The bias added to attention logits: (1, heads, n, n), n = H*W tokens, one more with a class token."""
        grid_size = tuple(grid_size)
        if grid_size == self.grid_size:
            table, index = self.table, self.index
        else:
            table = self._table_for(grid_size)
            index = gen_relative_position_index(grid_size, class_token=self.cls_token, device=table.device)
        return table[index].permute(2, 0, 1).unsqueeze(0)

    def _table_for(self, grid_size: tuple[int, int]) -> Tensor:
        """The table of another grid, in the same layout."""
        height, width = self._offsets(self.grid_size)
        patches, extra = self.table[: height * width], self.table[height * width :]
        planes = patches.T.reshape(1, -1, height, width)
        if self.resample:
            planes = F.interpolate(planes.float(), self._offsets(grid_size), mode="bicubic", align_corners=False)
        else:
            top, left = self.grid_size[0] - grid_size[0], self.grid_size[1] - grid_size[1]
            if top < 0 or left < 0:
                raise ValueError(f"relative positions for windows of {self.grid_size} cannot serve {grid_size}")
            planes = planes[..., top : height - top, left : width - left]
        return torch.cat([planes.flatten(2).squeeze(0).T.to(extra.dtype), extra])
