"""The one plain ViT encoder. Its parameters carry timm's names, so its checkpoints are timm's and the MAE releases'."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from timm.layers import PatchEmbed, resample_abs_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.models.linear import use_fast_linear
from emae_mm.registry import MODELS

ARCHITECTURES = {
    "tiny": dict(embed_dim=192, depth=12, num_heads=3),
    "small": dict(embed_dim=384, depth=12, num_heads=6),
    "base": dict(embed_dim=768, depth=12, num_heads=12),
    "large": dict(embed_dim=1024, depth=24, num_heads=16),
    "huge": dict(embed_dim=1280, depth=32, num_heads=16),
}
"""Widths, depths and heads of the standard ViTs (ViT paper, Table 1; DeiT for tiny and small)."""

LAYER_NORM_EPS = 1e-6

PRETRAINED_OPTIONS = ("allow_missing", "resample_patch_embed")


def resolve_arch(arch: str | dict) -> dict:
    """``embed_dim``, ``depth`` and ``num_heads`` of a named architecture or of an explicit dictionary.

    Raises:
        ConfigError: unknown name, missing or surplus key, or a width that the heads do not divide.
    """
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            raise ConfigError(f"unknown ViT architecture {arch!r}", f"use one of {sorted(ARCHITECTURES)} or a dict")
        return dict(ARCHITECTURES[arch])
    keys = {"embed_dim", "depth", "num_heads"}
    if set(arch) != keys:
        raise ConfigError(f"arch={dict(arch)!r} must have exactly the keys {sorted(keys)}", "give those three numbers")
    if arch["embed_dim"] % arch["num_heads"] or arch["embed_dim"] % 4:
        raise ConfigError(
            f"embed_dim={arch['embed_dim']} must be divisible by num_heads={arch['num_heads']} and by 4",
            "choose another width or number of heads",
        )
    return dict(arch)


def patch_grid(name: str, size: int | Sequence[int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches of an image, given by its height and width in pixels.

    Raises:
        ConfigError: the patch size does not divide them; calls them ``name``.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    if any(side % patch_size for side in size):
        raise ConfigError(
            f"{name}={size} is not divisible by patch_size={patch_size}", f"use multiples of {patch_size}"
        )
    return size[0] // patch_size, size[1] // patch_size


def sincos_position_embedding(embed_dim: int, grid_size: Sequence[int], prefix_tokens: int = 1) -> Tensor:
    """Fixed 2-D sine-cosine position embedding in the order of the MAE release.

    The release puts the *column* coordinate into the first half of the channels.

    Returns:
        (1, prefix_tokens + H*W, embed_dim) float32; the prefix rows are zero.
    """
    height, width = grid_size
    omega = 1.0 / 10000 ** (torch.arange(embed_dim // 4, dtype=torch.float64) / (embed_dim / 4))

    def encode(position: Tensor) -> Tensor:
        angle = position.reshape(-1, 1).double() * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    patches = torch.cat([encode(column), encode(row)], dim=1).float()
    return torch.cat([patches.new_zeros(prefix_tokens, embed_dim), patches]).unsqueeze(0)


def init_mae_weights(module: nn.Module) -> None:
    """Xavier-uniform linear layers with zero bias, unit layer norms: the initialisation of the MAE release."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


@MODELS.register_module()
class ViTEncoder(BaseModule):
    """Plain vision transformer with a class token and absolute position embeddings.

    ``state_dict`` keys are timm's: ``cls_token``, ``pos_embed``, ``patch_embed.proj.*``, ``blocks.{i}.*``, ``norm.*``.

    Args:
        arch: name in :data:`ARCHITECTURES`, or ``dict(embed_dim, depth, num_heads)``.
        img_size: input height and width in pixels; other sizes are computed with resampled position embeddings.
        position_size: height and width in pixels that the position embeddings are stored for, ``img_size`` by default.
            ViTDet keeps those of pre-training, which are resampled in every pass.
        patch_size: patch height and width in pixels.
        in_chans: input channels.
        mlp_ratio: hidden width of the MLP over ``embed_dim``.
        drop_path_rate: stochastic depth of the last block, growing linearly from 0 at the first.
        init_values: LayerScale's initial value; None for no LayerScale (MAE).
        learn_pos_embed: whether position embeddings get gradients (False while pre-training, as in MAE).
        final_norm: whether there is a final layer norm (``norm``).
        pretrained: checkpoint to start from in :meth:`init_weights`: a file, ``timm:NAME``, ``"random"``, or ``""``
            for "not chosen yet", which the launcher refuses for transfer runs.
        pretrained_options: how ``pretrained`` may differ from this encoder: ``allow_missing`` (names or patterns) and
            ``resample_patch_embed`` of :func:`emae_mm.checkpoints.load_encoder`.
        init_cfg: ``dict(type="Pretrained", checkpoint=...)`` is OpenMMLab's way of saying ``pretrained``.

    Raises:
        ConfigError: impossible architecture, or an image size that the patch size does not divide.
    """

    block_type: type[Block] = Block

    def __init__(
        self,
        arch: str | dict = "base",
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        init_values: float | None = None,
        learn_pos_embed: bool = False,
        final_norm: bool = True,
        pretrained: str = "",
        pretrained_options: dict | None = None,
        position_size: int | Sequence[int] | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        spec = resolve_arch(arch)
        img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        if unknown := set(pretrained_options or {}) - set(PRETRAINED_OPTIONS):
            raise ConfigError(
                f"pretrained_options has the unknown keys {sorted(unknown)}", f"use {' and '.join(PRETRAINED_OPTIONS)}"
            )
        self.embed_dim, self.depth, self.num_heads = spec["embed_dim"], spec["depth"], spec["num_heads"]
        self.patch_size, self.in_chans = patch_size, in_chans
        self.pretrained, self.pretrained_options = pretrained, dict(pretrained_options or {})
        self.grid_size = patch_grid("img_size", img_size, patch_size)
        self.position_grid = patch_grid("position_size", position_size or img_size, patch_size)
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, self.embed_dim, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dim))
        self.pos_embed = nn.Parameter(
            sincos_position_embedding(self.embed_dim, self.position_grid), requires_grad=learn_pos_embed
        )
        rates = [drop_path_rate * i / max(self.depth - 1, 1) for i in range(self.depth)]
        self.blocks = nn.Sequential(*(self.build_block(mlp_ratio, rate, init_values) for rate in rates))
        self.norm = nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS) if final_norm else nn.Identity()
        use_fast_linear(self)
        self.reset_parameters()

    def build_block(self, mlp_ratio: float, drop_path: float, init_values: float | None) -> nn.Module:
        """One transformer block, of the class's ``block_type``."""
        return self.block_type(
            self.embed_dim,
            self.num_heads,
            mlp_ratio,
            qkv_bias=True,
            drop_path=drop_path,
            init_values=init_values,
            norm_layer=lambda dim, **kwargs: nn.LayerNorm(dim, eps=LAYER_NORM_EPS, **kwargs),
        )

    @property
    def num_patches(self) -> int:
        """Patches of an image of the constructed size."""
        return self.grid_size[0] * self.grid_size[1]

    def reset_parameters(self) -> None:
        """Initialise as the MAE release does (patch projection like a linear layer; class token normal, 0.02)."""
        self.apply(init_mae_weights)
        projection = self.patch_embed.proj
        nn.init.xavier_uniform_(projection.weight.data.view(projection.weight.shape[0], -1))
        nn.init.zeros_(projection.bias)
        nn.init.normal_(self.cls_token, std=0.02)

    def init_weights(self) -> None:
        """Load ``pretrained`` when it names a checkpoint; otherwise keep the construction's random weights.

        Raises:
            CheckpointError: it does not fit; see :func:`emae_mm.checkpoints.load_encoder`.
        """
        source = self.pretrained
        if not source and isinstance(self.init_cfg, dict) and self.init_cfg.get("type") == "Pretrained":
            source = self.init_cfg["checkpoint"]
        if source and source != "random":
            from emae_mm.checkpoints import load_encoder

            load_encoder(self, source, **self.pretrained_options)
        self._is_init = True

    @classmethod
    def fresh_keys(cls) -> tuple[str, ...]:
        """Regular expressions of own parameters that a plain ViT checkpoint does not have and that start fresh."""
        return (r"blocks\.\d+\.ls[12]\.gamma",)

    def positions(self, grid_size: Sequence[int]) -> Tensor:
        """Position embeddings (1, 1+H'W', D) for a grid (H', W'), resampled bicubically if it is another."""
        if tuple(grid_size) == self.position_grid:
            return self.pos_embed
        return resample_abs_pos_embed(self.pos_embed, list(grid_size), list(self.position_grid), num_prefix_tokens=1)

    def embed(self, images: Tensor) -> Tensor:
        """Patch tokens with their positions added, without the class token.

        Args:
            images: (B, C, H, W), normalised; H and W multiples of ``patch_size``.

        Returns:
            (B, N, D) with N = H*W / patch_size**2, row-major.
        """
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        return self.patch_embed(images) + self.positions(grid)[:, 1:]

    def encode(self, tokens: Tensor) -> Tensor:
        """Prepend the class token and run all blocks and the final norm: (B, n, D) -> (B, 1+n, D)."""
        cls_token = (self.cls_token + self.pos_embed[:, :1]).to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return self.norm(self.blocks(torch.cat([cls_token, tokens], dim=1)))

    def encode_visible(self, tokens: Tensor, ids_keep: Tensor) -> Tensor:
        """Encode the visible patches of every part in one pass.

        Args:
            tokens: (B, N, D) from :meth:`embed`, computed once per image.
            ids_keep: (B, K, n) int64, the visible patch indices of each part.

        Returns:
            (B*K, 1+n, D), parts of one image adjacent.
        """
        batch, parts, visible = ids_keep.shape
        index = ids_keep.reshape(batch, parts * visible, 1).expand(-1, -1, tokens.shape[-1])
        return self.encode(tokens.gather(1, index).reshape(batch * parts, visible, -1))

    def forward(self, images: Tensor) -> Tensor:
        """All tokens after the final norm: (B, C, H, W) -> (B, 1+N, D), class token first."""
        return self.encode(self.embed(images))

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning-rate decay.

        Args:
            param_name: name relative to the encoder.

        Returns:
            (layer, number of layers): 0 for embeddings, i+1 for block i, depth+1 for everything after the blocks;
            the number of layers is depth + 2, so that a head outside the encoder shares the last layer.
        """
        num_layers = self.depth + 2
        if param_name.split(".")[0] in ("cls_token", "pos_embed", "patch_embed"):
            return 0, num_layers
        if param_name.startswith("blocks."):
            return int(param_name.split(".")[1]) + 1, num_layers
        return num_layers - 1, num_layers


@MODELS.register_module()
class ViTForClassification(ViTEncoder):
    """The encoder as an mmpretrain backbone: one feature vector per image.

    Args:
        pool: ``"cls"``: the class token after the final norm (MAE's linear probe); ``"avg"``: mean of the patch
            tokens, then a fresh layer norm ``fc_norm`` in place of the final norm (MAE's fine-tuning);
            ``"avg_norm"``: mean of the patch tokens after the final norm (pooled linear probe, k-NN).
        frozen: no gradients, always in evaluation mode.

    Raises:
        ConfigError: unknown ``pool``.
    """

    def __init__(self, *args, pool: str = "cls", frozen: bool = False, **kwargs):
        if pool not in ("cls", "avg", "avg_norm"):
            raise ConfigError(f"pool={pool!r} is unknown", "use 'cls', 'avg' or 'avg_norm'")
        super().__init__(*args, final_norm=pool != "avg", **kwargs)
        self.pool, self.frozen = pool, frozen
        if pool == "avg":
            self.fc_norm = nn.LayerNorm(self.embed_dim, eps=LAYER_NORM_EPS)
        if frozen:
            self.requires_grad_(False)
            self.eval()

    @classmethod
    def fresh_keys(cls) -> tuple[str, ...]:
        return (*super().fresh_keys(), r"fc_norm\.(weight|bias)")

    def unused_keys(self) -> tuple[str, ...]:
        """Regular expressions of a plain ViT checkpoint's parameters that this backbone does not have."""
        return (r"norm\.(weight|bias)",) if self.pool == "avg" else ()

    def train(self, mode: bool = True) -> "ViTForClassification":
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """(B, C, H, W) -> a tuple of one (B, D) feature, as mmpretrain's heads expect."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            tokens = super().forward(images)
        if self.pool == "cls":
            return (tokens[:, 0],)
        feature = tokens[:, 1:].mean(dim=1)
        return (self.fc_norm(feature) if self.pool == "avg" else feature,)
