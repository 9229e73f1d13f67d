"""Normalisation layers that OpenMMLab's libraries lack."""

import torch.nn.functional as F
from torch import Tensor, nn

from emae_mm.registry import MODELS


@MODELS.register_module()
class LN2d(nn.LayerNorm):
    """Layer norm over the channels of feature maps, at each place by itself: ViTDet's norm of neck and heads.

    In mmcv's notation ``norm_cfg=dict(type="emae_mm.LN2d", eps=1e-6)``; without ``eps`` mmcv asks for 1e-5.

    The result lies in memory channels last, where the norm is one pass over adjacent numbers, and the convolutions that
    follow keep it so; maps that come so are not copied.

    Args:
        num_features: channels.
        eps: added to the variance.
    """

    _abbr_ = "ln"  # mmcv's name for such a layer within a ConvModule

    def __init__(self, num_features: int, eps: float = 1e-6):
        super().__init__(num_features, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), channels last in memory."""
        return F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )
