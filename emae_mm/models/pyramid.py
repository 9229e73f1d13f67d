"""Multi-scale feature maps from the one scale a plain ViT has."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.registry import MODELS


def _four_scales(embed_dim: int, norm_cfg: dict, narrowing: int) -> nn.ModuleList:
    """Modules that scale (B, D, H, W) maps by 4, 2, 1 and 1/2; each doubling divides the channels by ``narrowing``."""
    once, twice = embed_dim // narrowing, embed_dim // narrowing**2
    return nn.ModuleList(
        [
            nn.Sequential(
                nn.ConvTranspose2d(embed_dim, once, 2, 2),
                build_norm_layer(norm_cfg, once)[1],
                nn.GELU(),
                nn.ConvTranspose2d(once, twice, 2, 2),
            ),
            nn.ConvTranspose2d(embed_dim, once, 2, 2),
            nn.Identity(),
            nn.MaxPool2d(2),
        ]
    )


@MODELS.register_module()
class MultiScaleFromStride16(BaseModule):
    """Four maps at 4, 2, 1 and 1/2 times the resolution of a plain ViT's four maps.

    Two transposed convolutions with a norm and GELU between them, one transposed convolution, nothing, and max-pooling:
    the adaptor of MAE's UperNet and of MIMDet's Mask R-CNN benchmark (Li et al. 2021). With 16-pixel patches the
    strides become 4, 8, 16 and 32; with 8-pixel patches 2, 4, 8 and 16.

    Args:
        embed_dim: channels of the maps, in and out.
        norm_cfg: the norm between the two transposed convolutions, in mmcv's notation.
    """

    def __init__(self, embed_dim: int, norm_cfg: dict | None = None, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.scales = _four_scales(embed_dim, dict(norm_cfg or dict(type="SyncBN")), narrowing=1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four (B, D, H, W) maps -> maps of 4, 2, 1 and 1/2 times their height and width (the last rounded down).

        Raises:
            ConfigError: not four maps.
        """
        if len(maps) != len(self.scales):
            raise ConfigError(
                f"the backbone gives {len(maps)} feature maps, the pyramid needs {len(self.scales)}",
                "give out_indices four blocks",
            )
        return tuple(scale(x) for scale, x in zip(self.scales, maps, strict=True))


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """ViTDet's pyramid: five maps at 4, 2, 1, 1/2 and 1/4 times the resolution of a plain ViT's last map.

    The four scales of :class:`MultiScaleFromStride16`, each doubling halving the channels; each then has a 1x1 and a
    3x3 convolution to ``out_channels``, without bias and with a norm after them; the fifth takes every other value of
    the fourth. Weights start as in torch (detectron2's do).

    Args:
        embed_dim: channels of the backbone's map, a multiple of 4.
        out_channels: channels of every map of the pyramid.
        norm_cfg: all its norms, in mmcv's notation; channel layer norm (eps 1e-6) by default.

    Raises:
        ConfigError: ``embed_dim`` is no multiple of 4.
    """

    def __init__(
        self,
        embed_dim: int,
        out_channels: int = 256,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        if embed_dim % 4:
            raise ConfigError(f"embed_dim={embed_dim} cannot be halved twice", "use a multiple of 4")
        norm_cfg = dict(norm_cfg or dict(type="emae_mm.LN2d", eps=1e-6))
        self.scales = _four_scales(embed_dim, norm_cfg, narrowing=2)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, out_channels, 1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
            )
            for channels in (embed_dim // 4, embed_dim // 2, embed_dim, embed_dim)
        )

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The backbone's one (B, D, H, W) map, in either memory format -> five maps (B, out_channels, h, w).

        Their heights and widths are 4, 2, 1 and 1/2 (rounded down) times those given, and half the fourth's (rounded
        up).

        Raises:
            ConfigError: not one map.
        """
        if len(maps) != 1:
            raise ConfigError(
                f"the backbone gives {len(maps)} feature maps, the simple feature pyramid takes one",
                "give out_indices the last block only",
            )
        levels = [convs(scale(maps[0])) for scale, convs in zip(self.scales, self.convs, strict=True)]
        return (*levels, F.max_pool2d(levels[-1], kernel_size=1, stride=2))
