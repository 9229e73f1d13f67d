"""The plain ViT as a dense backbone: feature maps for detection and segmentation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from emae_mm.errors import ConfigError
from emae_mm.models.attention import GridBlock
from emae_mm.models.relative_position import RelativePositionBias
from emae_mm.models.vit import ViTEncoder
from emae_mm.registry import MODELS

REL_POS_KINDS = ("none", "per_block", "shared", "decomposed")


@MODELS.register_module()
class DenseViT(ViTEncoder):
    """Plain ViT that returns one feature map for each chosen block, without a final norm.

    Without windows and relative positions a map is timm's ``forward_intermediates(..., norm=False)``.

    Args:
        arch, img_size, patch_size, in_chans, mlp_ratio, drop_path_rate, init_values, pretrained, position_size: see
            :class:`ViTEncoder`. ``img_size`` is the size that global relative positions (and position embeddings, where
            ``position_size`` does not say otherwise) are stored for: the training crop; other sizes are resampled.
        out_indices: blocks whose outputs are returned, ascending, 0 the first.
        window_size: side of the attention windows in patches; None for global attention everywhere. Images smaller
            than a window get smaller windows, except with decomposed relative positions, where they are padded.
        global_blocks: blocks with global attention where ``window_size`` is set.
        rel_pos_bias: ``"none"``; ``"per_block"``: one table in every block (UperNet in BEiT's and MAE's settings);
            ``"shared"``: one table for all windowed blocks and one for all global ones (MIMDet's benchmark);
            ``"decomposed"``: embeddings of vertical and of horizontal offsets in every block, multiplied with the query
            (ViTDet), as ``blocks.{i}.attn.rel_pos_h`` and ``rel_pos_w``; without class token only.
        use_cls_token: whether the class token takes part; it cannot together with windows.
        learn_pos_embed: whether the absolute position embeddings get gradients.
        with_cp: recompute each block in the backward pass instead of keeping its activations.

    Raises:
        ConfigError: contradictory options, or a block that does not exist.
    """

    block_type = GridBlock

    def __init__(
        self,
        *args,
        out_indices: Sequence[int] = (3, 5, 7, 11),
        window_size: int | None = None,
        global_blocks: Sequence[int] = (),
        rel_pos_bias: str = "none",
        use_cls_token: bool = True,
        learn_pos_embed: bool = True,
        with_cp: bool = False,
        **kwargs,
    ):
        super().__init__(*args, learn_pos_embed=learn_pos_embed, final_norm=False, **kwargs)
        self.out_indices, self.global_blocks = tuple(out_indices), frozenset(global_blocks)
        self.window_size, self.rel_pos_kind = window_size, rel_pos_bias
        self.use_cls_token, self.with_cp = use_cls_token, with_cp
        self._check_options()
        if not use_cls_token:
            self.cls_token = None
        self.rel_pos = nn.ModuleDict({key: self._build_rel_pos(block) for block, key in self._rel_pos_keys().items()})
        if rel_pos_bias == "decomposed":
            for index, block in enumerate(self.blocks):
                block.attn.add_decomposed_positions(
                    (window_size, window_size) if self._is_windowed(index) else self.grid_size
                )

    def _check_options(self) -> None:
        named = [*self.out_indices, *self.global_blocks]
        if not self.out_indices or not all(0 <= index < self.depth for index in named):
            raise ConfigError(
                f"out_indices={self.out_indices}, global_blocks={sorted(self.global_blocks)} do not fit a ViT of "
                f"{self.depth} blocks",
                f"use indices from 0 to {self.depth - 1}",
            )
        if list(self.out_indices) != sorted(set(self.out_indices)):
            raise ConfigError(f"out_indices={self.out_indices} are not ascending", "sort them, each once")
        if self.rel_pos_kind not in REL_POS_KINDS:
            raise ConfigError(f"rel_pos_bias={self.rel_pos_kind!r} is unknown", f"use one of {list(REL_POS_KINDS)}")
        if self.window_size is None and self.global_blocks:
            raise ConfigError("global_blocks is set without window_size", "set window_size, or drop global_blocks")
        if self.window_size is not None and self.use_cls_token:
            raise ConfigError(
                f"window_size={self.window_size} with use_cls_token=True: the class token belongs to no window",
                "set use_cls_token=False",
            )
        if self.rel_pos_kind == "decomposed" and self.use_cls_token:
            raise ConfigError(
                "rel_pos_bias='decomposed' with use_cls_token=True: the class token has no row and column",
                "set use_cls_token=False",
            )

    def _is_windowed(self, block: int) -> bool:
        return self.window_size is not None and block not in self.global_blocks

    def _rel_pos_key(self, block: int) -> str | None:
        """The entry of ``rel_pos`` that serves a block."""
        if self.rel_pos_kind in ("none", "decomposed"):
            return None
        if self.rel_pos_kind == "per_block":
            return str(block)
        return "window" if self._is_windowed(block) else "global"

    def _rel_pos_keys(self) -> dict[int, str]:
        """One block for each entry of ``rel_pos``."""
        first: dict[str, int] = {}
        for block in range(self.depth):
            if (key := self._rel_pos_key(block)) is not None:
                first.setdefault(key, block)
        return {block: key for key, block in first.items()}

    def _build_rel_pos(self, block: int) -> RelativePositionBias:
        if self._is_windowed(block):
            return RelativePositionBias((self.window_size, self.window_size), self.num_heads, resample=False)
        return RelativePositionBias(self.grid_size, self.num_heads, cls_token=self.use_cls_token)

    @classmethod
    def fresh_keys(cls) -> tuple[str, ...]:
        """See :meth:`ViTEncoder.fresh_keys`; relative positions and LayerScale start fresh."""
        return (*super().fresh_keys(), r"rel_pos\.\w+\.table", r"blocks\.\d+\.attn\.rel_pos_[hw]")

    def unused_keys(self) -> tuple[str, ...]:
        """Regular expressions of a plain ViT checkpoint's parameters that this backbone does not have."""
        return (r"norm\.(weight|bias)",) if self.use_cls_token else (r"norm\.(weight|bias)", r"cls_token")

    def get_layer_depth(self, param_name: str) -> tuple[int, int]:
        """See :meth:`ViTEncoder.get_layer_depth`.

        A block's own relative positions go with the block; shared ones with everything after the blocks, as in BEiT.
        """
        if param_name.startswith("rel_pos."):
            key = param_name.split(".")[1]
            return (int(key) + 1 if key.isdigit() else self.depth + 1), self.depth + 2
        return super().get_layer_depth(param_name)

    def _window(self, block: int, grid: Sequence[int]) -> tuple[int, int] | None:
        """Height and width of a block's windows on a grid; None for global attention."""
        if not self._is_windowed(block):
            return None
        if self.rel_pos_kind == "decomposed":
            return self.window_size, self.window_size
        return min(self.window_size, grid[0]), min(self.window_size, grid[1])

    def _biases(self, grid: tuple[int, int]) -> dict[int, Tensor | None]:
        """Every block's relative position bias; shared ones are gathered once per forward pass."""
        gathered = {
            key: self.rel_pos[key](self._window(block, grid) or grid) for block, key in self._rel_pos_keys().items()
        }
        return {block: gathered.get(self._rel_pos_key(block)) for block in range(self.depth)}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the chosen blocks.

        Args:
            images: (B, C, H, W), normalised. Sizes that are no multiple of the patch size are padded with zeros (the
                mean colour) at the right and bottom.

        Returns:
            for each of ``out_indices`` a (B, D, ceil(H/p), ceil(W/p)) map, channels last in memory: the tokens' own
            order, and the one in which convolutions and layer norms over channels are fastest.
        """
        images = F.pad(images, (0, -images.shape[-1] % self.patch_size, 0, -images.shape[-2] % self.patch_size))
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        x = self.embed(images)
        if self.use_cls_token:
            cls_token = (self.cls_token + self.pos_embed[:, :1]).to(x.dtype).expand(x.shape[0], -1, -1)
            x = torch.cat([cls_token, x], dim=1)
        biases, maps = self._biases(grid), []
        for index, block in enumerate(self.blocks[: self.out_indices[-1] + 1]):
            options = (grid, self._window(index, grid), biases[index])
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, *options, use_reentrant=False)
            else:
                x = block(x, *options)
            if index in self.out_indices:
                patches = x[:, 1:] if self.use_cls_token else x
                maps.append(patches.unflatten(1, grid).permute(0, 3, 1, 2))
        return tuple(maps)
