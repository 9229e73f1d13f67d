"""Bringing positions and patch embeddings of another size to an encoder's, in place."""

import re
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from emae_mm.checkpoints.describe import square_grid
from emae_mm.checkpoints.formats.base import FIRST, REL_POS

TABLE = re.compile(r"rel_pos\.\w+\.table")


def resample(
    found: dict[str, Tensor],
    own: dict[str, Tensor],
    grid_size: Sequence[int],
    windows: Callable[[str], tuple[int, int] | None],
    patch_embed: bool = False,
) -> list[str]:
    """Resample what differs from the encoder in its size only, and return the names.

    ``pos_embed`` of another (square) grid bicubically, decomposed relative positions linearly, tables of relative
    positions as timm does; the patch embedding only on request, by its pseudo-inverse, as in FlexiViT.

    Args:
        found: the checkpoint's encoder tensors; changed in place.
        own: the encoder's.
        grid_size: (H, W) of the encoder's position embeddings.
        windows: the (H, W) a relative position table of the encoder is stored for, by its name.
        patch_embed: whether to resample the patch embedding.
    """
    changed = []
    for name, tensor in found.items():
        if name not in own or own[name].shape == tensor.shape:
            continue
        if (new := _resized(name, tensor, own[name], grid_size, windows, patch_embed)) is not None:
            found[name] = new.to(tensor.dtype)
            changed.append(name)
    return changed


def _resized(name, theirs, ours, grid_size, windows, patch_embed) -> Tensor | None:
    from timm.layers import resample_abs_pos_embed, resample_patch_embed, resize_rel_pos_bias_table

    if name == "pos_embed" and theirs.ndim == 3 and theirs.shape[2] == ours.shape[2]:
        old = square_grid(theirs.shape[1])
        return old and resample_abs_pos_embed(theirs, list(grid_size), list(old), num_prefix_tokens=1)
    if re.fullmatch(REL_POS, name) and theirs.shape[1] == ours.shape[1]:
        return F.interpolate(theirs.float().T[None], size=len(ours), mode="linear")[0].T.contiguous()
    if TABLE.fullmatch(name) and theirs.shape[1] == ours.shape[1] and (window := windows(name)):
        return resize_rel_pos_bias_table(theirs, window, tuple(ours.shape))
    if name == FIRST and patch_embed and theirs.shape[:2] == ours.shape[:2]:
        return resample_patch_embed(theirs, list(ours.shape[-2:]))
    return None
