"""What a masked autoencoder paints where it sees nothing, and how far parts disagree about it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from emae_mm.errors import ConfigError
from emae_mm.fileio import write_atomically
from emae_mm.models.losses import PIXEL_EPS, patchify, reconstruction_loss, self_consistency_loss, unpatchify
from emae_mm.models.masking import ParallelMasking, hidden_mask

LEAKY = "hidden patches are shown with the true brightness and contrast of each patch (targets are normalised)"
"""To be said below every picture of a model with ``norm_pix``."""


@dataclass
class Reconstruction:
    """Reconstructions of B images under K masks.

    Attributes:
        masked: (B, K, C, H, W), the image with hidden patches set to mid-grey, in [0, 1].
        painted: (B, K, C, H, W), hidden patches predicted, visible pixels pasted, clamped to [0, 1].
        hidden_mse: mean squared error on hidden patches in the space of the training targets.
        disagreement: mean absolute difference between the predictions of two parts for a patch hidden from both, in
            the space of the training targets; 0 = all parts agree.
    """

    masked: Tensor
    painted: Tensor
    hidden_mse: float
    disagreement: float

    def head(self, count: int) -> "Reconstruction":
        """The first images only; the numbers stay those of all."""
        return replace(self, masked=self.masked[:count], painted=self.painted[:count])


def parallel_parts(batch: int, num_patches: int, num_parts: int = 4, seed: int = 0) -> Tensor:
    """Visible patches of a fixed partition, the same for every model: (batch, K, N/K) int64 with K = num_parts."""
    strategy = ParallelMasking(num_parts)
    strategy.check(num_patches)
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(batch, 1, num_patches, generator=generator).argsort(dim=-1)
    return strategy.split(orders)[0]


@torch.no_grad()
def reconstruct(model, images: Tensor, ids_keep: Tensor, mean: Tensor, std: Tensor) -> Reconstruction:
    """Reconstruct images from each of several visible sets.

    A model trained on per-patch normalised targets predicts no brightness or contrast; to show its predictions, the
    true mean and standard deviation of each patch are put back ("ground-truth de-normalised"). Such pictures, unlike
    the two numbers, know something of the hidden patches.

    Args:
        model: a :class:`~emae_mm.models.algorithms.MaskedAutoencoder`, in evaluation mode.
        images: (B, C, H, W), normalised with ``mean`` and ``std``.
        ids_keep: (B, K, n) int64 from :func:`parallel_parts`.
        mean: (C,) of the normalisation, pixel values 0..255.
        std: (C,), likewise.

    Raises:
        ConfigError: ``ids_keep`` is no partition (disagreement is defined for disjoint parts).
    """
    batch, parts, visible = ids_keep.shape
    encoder = model.backbone
    tokens = encoder.embed(images)
    if parts * visible != tokens.shape[1]:
        raise ConfigError(
            f"{parts} parts of {visible} patches do not cover {tokens.shape[1]} patches", "use parallel_parts()"
        )
    predictions = model.decoder(encoder.encode_visible(tokens, ids_keep), ids_keep).float()
    mask = hidden_mask(ids_keep, tokens.shape[1])
    patches = patchify(images.float(), encoder.patch_size)
    pixels, targets = predictions, patches
    if model.norm_pix:
        variance, average = torch.var_mean(patches, dim=-1, keepdim=True)
        scale = (variance + PIXEL_EPS).sqrt()
        targets = (patches - average) / scale
        pixels = predictions * scale.unsqueeze(1) + average.unsqueeze(1)
    grid = (images.shape[-2] // encoder.patch_size, images.shape[-1] // encoder.patch_size)

    def to_image(values: Tensor) -> Tensor:
        normalised = unpatchify(values.flatten(0, 1), encoder.patch_size, grid)
        scaled = (normalised * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)) / 255.0
        return scaled.clamp(0, 1).unflatten(0, (batch, parts))

    hidden = mask.unsqueeze(-1)
    original = patches.unsqueeze(1).expand_as(predictions)
    grey = patchify(((127.5 - mean) / std).view(1, -1, 1, 1).expand_as(images), encoder.patch_size).unsqueeze(1)
    return Reconstruction(
        masked=to_image(torch.where(hidden.bool(), grey, original)),
        painted=to_image(torch.where(hidden.bool(), pixels, original)),
        hidden_mse=reconstruction_loss(predictions, targets, mask).item(),
        # the loss is twice the mean distance, see self_consistency_loss
        disagreement=self_consistency_loss(predictions, mask, partitions=True).item() / 2,
    )


def draw_panel(originals: Tensor, results: dict[str, Reconstruction], path: str | Path, *, note: str = "") -> None:
    """A picture of reconstructions under several masks, written as PNG.

    Each image takes one row for what the parts see and one for each model: the original, then one column per mask. The
    last column shows, for each pixel, the standard deviation of the reconstructions over masks.

    Args:
        originals: (B, C, H, W) in [0, 1].
        results: model name to its reconstructions of the same images under the same masks.
        path: target PNG, written atomically.
        note: a line below the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first = next(iter(results.values()))
    batch, parts = first.masked.shape[:2]
    rows, columns = batch * (1 + len(results)), parts + 2
    figure = Figure(figsize=(1.15 * columns + 1.0, 1.15 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_visible(False)

    def show(axis, image: Tensor) -> None:
        axis.imshow(image.permute(1, 2, 0).cpu().numpy(), interpolation="nearest")

    titles = ["original", *(f"mask {part + 1}" for part in range(parts)), "spread"]
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    for index in range(batch):
        top = index * (1 + len(results))
        axes[top, 0].set_ylabel("visible", fontsize=8)
        show(axes[top, 0], originals[index])
        for part in range(parts):
            show(axes[top, 1 + part], first.masked[index, part])
        for offset, (name, result) in enumerate(results.items(), start=1):
            row = axes[top + offset]
            row[0].set_ylabel(name, fontsize=8)
            for part in range(parts):
                show(row[1 + part], result.painted[index, part])
            spread = result.painted[index].std(dim=0).mean(dim=0)
            row[-1].imshow(spread.cpu().numpy(), cmap="magma", vmin=0, vmax=0.25)
    summary = "   ".join(f"{name}: disagreement {result.disagreement:.3f}" for name, result in results.items())
    figure.supxlabel("\n".join(filter(None, [summary, note])), fontsize=8)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=110))
