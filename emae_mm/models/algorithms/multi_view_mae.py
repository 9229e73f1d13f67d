"""Multi-View MAE: two masked views of an image are reconstructed, and their encodings agree (doi:10.3390/app132212413).

Only the paper's headings, abstract and tables could be read; docs/methods.md lists what is chosen here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.models.algorithms.masked_autoencoder import MaskedAutoencoder
from emae_mm.models.contrast import contrastive_loss
from emae_mm.models.losses import pixel_targets
from emae_mm.registry import MODELS

NORMS = {"SyncBN": nn.SyncBatchNorm, "BN": nn.BatchNorm1d, "LN": nn.LayerNorm}
"""Normalisations of feature vectors by OpenMMLab's names; the launcher turns SyncBN into BN where there is no GPU."""


class Projector(nn.Sequential):
    """Encodings (B, D) -> vectors to compare (B, C): linear, normalisation, ReLU, linear.

    Args:
        embed_dim: D.
        hidden_dim: width of the hidden layer.
        out_dim: C.
        norm: ``dict(type=...)`` with a name in :data:`NORMS`.

    Raises:
        ConfigError: unknown normalisation.
    """

    def __init__(self, embed_dim: int, hidden_dim: int = 2048, out_dim: int = 128, norm: dict | None = None):
        kind = (norm or {"type": "SyncBN"}).get("type")
        if kind not in NORMS:
            raise ConfigError(f"the projector's norm {kind!r} is unknown", f"use a type out of {sorted(NORMS)}")
        super().__init__(
            nn.Linear(embed_dim, hidden_dim), NORMS[kind](hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim)
        )


@MODELS.register_module()
class MultiViewMAE(MaskedAutoencoder):
    """Masked autoencoder of two views of each image with a contrastive loss between them.

    Both views are masked independently, reconstructed like MAE's image, and the mean of a view's encoded visible
    patches goes through a projector to be compared with that of the other view and of all other images.

    Args:
        mask_ratio: share of the patches hidden in each view, in (0, 1).
        contrast_weight: lambda, the weight of the contrastive loss; 0 leaves it out, and the projector.
        temperature: of the contrastive loss, > 0.
        two_targets: whether the views are two crops, each its own target. False (an ablation): one crop under two
            masks, so that both have the same target; the data pipeline then gives one image.
        projector: arguments of :class:`Projector`.
        **kwargs: see :class:`MaskedAutoencoder`.

    Raises:
        ConfigError: a value out of range; on call, a number of views that does not fit ``two_targets``.
    """

    def __init__(
        self,
        *args,
        mask_ratio: float = 0.8,
        contrast_weight: float = 1.0,
        temperature: float = 0.1,
        two_targets: bool = True,
        projector: dict | None = None,
        **kwargs,
    ):
        super().__init__(
            *args, masking={"type": "RandomMasking", "mask_ratio": mask_ratio}, consistency_weight=0.0, **kwargs
        )
        if contrast_weight < 0 or temperature <= 0:
            raise ConfigError(
                f"contrast_weight={contrast_weight}, temperature={temperature}: out of range",
                "use a weight of at least 0 and a temperature above 0",
            )
        self.contrast_weight, self.temperature, self.two_targets = contrast_weight, temperature, two_targets
        if contrast_weight:
            self.projector = Projector(self.backbone.embed_dim, **(projector or {}))

    def forward(self, inputs: Tensor | Sequence[Tensor], data_samples: list | None = None, mode: str = "tensor"):
        """As any masked autoencoder's; ``mode="loss"`` takes the views, each (B, C, H, W)."""
        if mode != "loss":
            return super().forward(inputs, data_samples, mode)
        views = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        expected = 2 if self.two_targets else 1
        if len(views) != expected:
            raise ConfigError(
                f"Multi-View MAE with two_targets={self.two_targets} needs {expected} view(s) of each image, "
                f"the data pipeline gives {len(views)}",
                "give mmpretrain.MultiView num_views=[2] in train_dataloader.dataset.pipeline with two_targets=True, "
                "num_views=[1] with False",
            )
        return self.loss(torch.cat(views * (2 // expected)), data_samples)

    def losses(self, images: Tensor, orders: Tensor) -> dict[str, Tensor]:
        """Losses of two views on given patch orders.

        Args:
            images: (2B, C, H, W), the first view of all images, then the second.
            orders: (2B, 1, N) int64, one permutation of the patches for each view.

        Returns:
            ``loss_reconstruction``, the mean of both views', and ``loss_contrast``, both weighted; ``contrast_top1``,
            the share of views that recognise their partner, without a gradient.
        """
        targets = pixel_targets(images, self.backbone.patch_size, self.norm_pix)
        (group,) = self.masking.groups(orders, self.predicted_share)
        latents = self.backbone.encode_visible(self.backbone.embed(images), group.ids_keep)  # (2B, 1+n, D)
        predictions = self.decoder(latents, group.ids_keep, group.ids_hidden)
        losses = self.losses_of([predictions], [group], targets)
        if self.contrast_weight:
            first, second = self.projector(latents[:, 1:].mean(dim=1)).chunk(2)
            contrast, losses["contrast_top1"] = contrastive_loss(first, second, self.temperature)
            losses["loss_contrast"] = self.contrast_weight * contrast
        return losses
