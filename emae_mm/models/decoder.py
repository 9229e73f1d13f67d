"""The light decoder of MAE, with the parameter names of the official release."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.models.linear import linear, use_fast_linear
from emae_mm.models.masking import complement
from emae_mm.models.vit import LAYER_NORM_EPS, init_mae_weights, sincos_position_embedding
from emae_mm.registry import MODELS


@MODELS.register_module()
class MAEDecoder(BaseModule):
    """Reconstructs hidden patches from the encoded visible ones.

    Tokens stand in the order class token, visible patches, hidden patches: attention does not depend on the order of
    tokens, positions are in the embeddings. What no prediction depends on is not computed, exactly: in the first block
    mask tokens differ by their position only, so their normalisation and projections are computed once per position
    instead of once per token; in the last block only the predicted patches ask, and only they are normalised and
    projected to pixels.

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

    Raises:
        ConfigError: a decoder without blocks.
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
        if depth < 1:
            raise ConfigError(f"a decoder of depth {depth} predicts nothing", "use at least 1 block (MAE uses 8)")
        self.decoder_blocks = nn.Sequential(
            *(Block(decoder_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth))
        )
        self.decoder_norm = norm(decoder_dim)
        self.decoder_pred = nn.Linear(decoder_dim, patch_size**2 * in_chans)
        use_fast_linear(self)
        self.apply(init_mae_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latents: Tensor, ids_keep: Tensor, ids_hidden: Tensor | None = None) -> Tensor:
        """Predict patches of every part, all parts in one pass.

        Args:
            latents: (B*K, 1+n, D) from :meth:`ViTEncoder.encode_visible`.
            ids_keep: (B, K, n) int64.
            ids_hidden: (B, K, m) int64, the hidden patches to predict; others take no part in decoding. None: all
                patches, also the visible ones.

        Returns:
            (B, K, m, P) predictions with P = patch_size**2 * channels, in the order of ``ids_hidden``; for None
            (B, K, N, P) in row-major order.
        """
        batch, parts, visible = ids_keep.shape
        everywhere = ids_hidden is None
        if everywhere:
            ids_hidden = complement(ids_keep, self.decoder_pos_embed.shape[1] - 1)
        answers = 1 if everywhere else 1 + visible  # where the tokens whose prediction is wanted begin
        tokens = self._decode(latents, ids_keep.flatten(0, 1), ids_hidden.flatten(0, 1), answers)
        predictions = self.decoder_pred(self.decoder_norm(tokens)).unflatten(0, (batch, parts))
        if not everywhere:
            return predictions
        restore = torch.cat([ids_keep, ids_hidden], dim=-1).argsort(dim=-1)
        return predictions.gather(2, restore.unsqueeze(-1).expand_as(predictions))

    def _decode(self, latents: Tensor, ids_keep: Tensor, ids_hidden: Tensor, answers: int) -> Tensor:
        """All blocks: (B*K, 1+n, D), (B*K, n), (B*K, m) -> (B*K, 1+n+m-answers, d)."""
        seen = self.decoder_embed(latents)
        positions = self.decoder_pos_embed[0]
        places = F.embedding(F.pad(ids_keep + 1, (1, 0)), positions)  # 0: the class token's
        seen = seen + places.to(seen.dtype)
        masked = self.mask_token[0] + positions[1:]  # (N, d), the mask token of every position

        first, *others = self.decoder_blocks
        single = not others
        tokens = torch.cat([seen, F.embedding(ids_hidden, masked).to(seen.dtype)], dim=1)
        qkv = torch.cat([_qkv(first, seen), F.embedding(ids_hidden, _qkv(first, masked))], dim=1)
        query, key, value = _heads(first, qkv).unbind(2)
        if single:
            return _rest(first, tokens[:, answers:], query[:, answers:], key, value)
        tokens = _rest(first, tokens, query, key, value)
        *middle, last = others
        for block in middle:
            tokens = block(tokens)
        return _answer(last, tokens, answers)


def _qkv(block: Block, tokens: Tensor) -> Tensor:
    return block.attn.qkv(block.norm1(tokens))


def _heads(block: Block, projected: Tensor) -> Tensor:
    """(B, n, c*d) -> (B, n, c, heads, d/heads)."""
    heads = block.attn.num_heads
    return projected.unflatten(-1, (-1, heads, block.attn.head_dim))


def _rest(block: Block, tokens: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What follows the projections in a block: attention (B, n, heads, d/heads), residuals and MLP."""
    mixed = F.scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    tokens = tokens + block.attn.proj(mixed.transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.norm2(tokens))


def _answer(block: Block, tokens: Tensor, answers: int) -> Tensor:
    """A block whose output is wanted from token ``answers`` on only: the others serve as keys and values."""
    normed = block.norm1(tokens)
    width, projection = tokens.shape[-1], block.attn.qkv
    query = linear(normed[:, answers:], projection.weight[:width], projection.bias[:width])
    both = linear(normed, projection.weight[width:], projection.bias[width:])
    key, value = _heads(block, both).unbind(2)
    return _rest(block, tokens[:, answers:], _heads(block, query).squeeze(2), key, value)
