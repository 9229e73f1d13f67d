"""Multi-scale feature maps from the one scale a plain ViT has."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.registry import MODELS


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
        norm_cfg = dict(norm_cfg or dict(type="SyncBN"))
        self.scales = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
                    build_norm_layer(norm_cfg, embed_dim)[1],
                    nn.GELU(),
                    nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
                ),
                nn.ConvTranspose2d(embed_dim, embed_dim, 2, 2),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )

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
