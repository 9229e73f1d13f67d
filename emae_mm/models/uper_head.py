"""UPerNet's head, whose fusing convolution is computed at each level's own resolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import UPerHead as _UPerHead
from torch import Tensor

from emae_mm.models.linear import linear
from emae_mm.registry import MODELS


def resizing_matrix(size: int, target: int, align_corners: bool, like: Tensor) -> Tensor:
    """(target, size), of the type and on the device of ``like``: linear interpolation of one axis."""
    axis = torch.eye(size, dtype=torch.float64, device=like.device).unsqueeze(0)
    return F.interpolate(axis, size=target, mode="linear", align_corners=align_corners)[0].T.to(like)


def shifted(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the three taps of a convolution with padding 1 see of an axis: row i - 1, i and i + 1, zero outside."""
    nothing = torch.zeros_like(matrix[:1])
    return torch.cat([nothing, matrix[:-1]]), matrix, torch.cat([matrix[1:], nothing])


def conv_of_resized(x: Tensor, weight: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """``F.conv2d(F.interpolate(x, size, mode="bilinear"), weight, padding=1)`` with far fewer products.

    Interpolation and the mixing of channels act on different axes, so they may change places: channels are mixed at the
    resolution of ``x``, once for each of the nine taps, and two banded matrices, of columns and of rows, interpolate,
    shift and add the results. Products fall from 9 C O for each pixel of the target to about 9 C O for each pixel of
    ``x`` (a quarter for twice the resolution, a sixteenth for four times).

    Args:
        x: (B, C, h, w), fastest with channels last.
        weight: (O, C, 3, 3).
        size: (H, W) of the target.
        align_corners: as in ``F.interpolate``.

    Returns:
        (B, O, H, W), channels last.
    """
    batch, _, height, width = x.shape
    out = weight.shape[0]
    tokens = x.permute(0, 2, 3, 1)
    # column i of the target is the sum over (place, tap); row j over (tap, place)
    columns = torch.stack(shifted(resizing_matrix(width, size[1], align_corners, x)), dim=2).flatten(1)
    rows = torch.cat(shifted(resizing_matrix(height, size[0], align_corners, x)), dim=1)
    wide = []
    for tap in range(3):
        mixed = linear(tokens, weight[:, :, tap].permute(2, 0, 1).flatten(0, 1))  # (B, h, w, 3 * O)
        wide.append(columns @ mixed.reshape(batch, height, 3 * width, out))
    stacked = torch.stack(wide, dim=1).reshape(batch, 3 * height, size[1] * out)
    return (rows @ stacked).reshape(batch, *size, out).permute(0, 3, 1, 2)


@MODELS.register_module()
class UPerHead(_UPerHead):
    """mmsegmentation's ``UPerHead``: the same parameters and values, fewer products.

    The last convolution sees the concatenation of all levels, resized to the finest. By linearity it is the sum of one
    convolution a level, and those of resized levels are :func:`conv_of_resized`. With ViT-B's four maps that is four
    times fewer products in the largest convolution of the model.

    Args:
        **kwargs: see mmsegmentation's.
    """

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """Backbone maps -> (B, channels, H, W) at the resolution of the first."""
        inputs = self._transform_inputs(inputs)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=False)]
        laterals.append(self.psp_forward(inputs))
        for level in range(len(laterals) - 1, 0, -1):
            finer = laterals[level - 1]
            laterals[level - 1] = finer + F.interpolate(
                laterals[level], size=finer.shape[2:], mode="bilinear", align_corners=self.align_corners
            )
        maps = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)] + laterals[-1:]
        return self._fuse(maps)

    def _fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """The last convolution, norm and activation, of maps from fine to coarse."""
        fusing = self.fpn_bottleneck
        finest, *coarser = maps
        first, *others = fusing.conv.weight.split(self.channels, dim=1)
        fused = F.conv2d(finest, first, fusing.conv.bias, padding=1)
        for x, weight in zip(coarser, others, strict=True):
            fused = fused + conv_of_resized(x, weight, finest.shape[2:], self.align_corners)
        if fusing.with_norm:
            fused = fusing.norm(fused)
        return fusing.activate(fused) if fusing.with_activation else fused
