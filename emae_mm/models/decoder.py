"""The light decoder of MAE, with the parameter names of the official release."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from emae_mm.models.vit import LAYER_NORM_EPS, init_mae_weights, sincos_position_embedding
from emae_mm.registry import MODELS


@MODELS.register_module()
class MAEDecoder(BaseModule):
    """Reconstructs all patches from the encoded visible ones.

    ``state_dict`` keys are those of the official MAE release: ``decoder_embed.*``, ``mask_token``,
    ``decoder_pos_embed``, ``decoder_blocks.{i}.*``, ``decoder_norm.*``, ``decoder_pred.*``.

    Args:
        embed_dim: D, the encoder's width.
        grid_size: patch rows and columns.
        patch_size: patch height and width in pixels.
        in_chans: image channels.
        decoder_dim: d, the decoder's width.
        depth: blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over ``decoder_dim``.
    """

    def __init__(
        self,
        embed_dim: int,
        grid_size: Sequence[int],
        patch_size: int = 16,
        in_chans: int = 3,
        decoder_dim: int = 512,
        depth: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)

        def norm(dim: int, **kwargs) -> nn.LayerNorm:
            return nn.LayerNorm(dim, eps=LAYER_NORM_EPS, **kwargs)

        self.decoder_embed = nn.Linear(embed_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.decoder_pos_embed = nn.Parameter(sincos_position_embedding(decoder_dim, grid_size), requires_grad=False)
        self.decoder_blocks = nn.Sequential(
            *(Block(decoder_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        )
        self.decoder_norm = norm(decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, patch_size**2 * in_chans)
        self.apply(init_mae_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latents: Tensor, ids_keep: Tensor) -> Tensor:
        """Predict every patch of every part, all parts in one pass.

        Mask tokens stand where a patch is hidden; encoded tokens return to their own positions.

        Args:
            latents: (B*K, 1+n, D) from :meth:`ViTEncoder.encode_visible`.
            ids_keep: (B, K, n) int64.

        Returns:
            (B, K, N, P) predictions with P = patch_size**2 * channels, also at the visible positions.
        """
        batch, parts, visible = ids_keep.shape
        tokens = self.decoder_embed(latents)
        positions = self.decoder_pos_embed.to(tokens.dtype)
        index = ids_keep.reshape(batch * parts, visible, 1).expand(-1, -1, tokens.shape[-1])
        patches = (self.mask_token.to(tokens.dtype)).expand(batch * parts, positions.shape[1] - 1, -1)
        patches = patches.scatter(1, index, tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + positions
        tokens = self.decoder_norm(self.decoder_blocks(tokens))
        return self.decoder_pred(tokens[:, 1:]).unflatten(0, (batch, parts))
