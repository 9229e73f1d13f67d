"""MAE and EMAE: one masked autoencoder, two configurations."""

from dataclasses import dataclass

import torch
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor

from emae_mm.errors import ConfigError
from emae_mm.models.losses import CONSISTENCY_NORMS, pixel_targets, reconstruction_loss, self_consistency_loss
from emae_mm.models.masking import build_masking, hidden_mask
from emae_mm.registry import MODELS


@dataclass
class PartsOutput:
    """Everything one step computes. B images, K parts, N patches, n visible patches a part, D width, P pixels a patch.

    ``ids_keep``, ``latents``, ``predictions`` and ``masks`` are lists over groups of equally large parts: one group for
    every strategy but complementary masking, which has two.

    Attributes:
        ids_keep: per group (B, K, n) int64, the visible patches of each part.
        latents: per group (B, K, 1+n, D), the encoder's output, class token first.
        predictions: per group (B, K, N, P), the decoder's output at all positions.
        masks: per group (B, K, N) float32, 1 = hidden.
        targets: (B, N, P) float32, the pixels to reconstruct, normalised per patch if the model says so.
        losses: scalars that add up to the training loss; a loss with weight 0 is absent.
    """

    ids_keep: list[Tensor]
    latents: list[Tensor]
    predictions: list[Tensor]
    masks: list[Tensor]
    targets: Tensor
    losses: dict[str, Tensor]


@MODELS.register_module()
class MaskedAutoencoder(BaseSelfSupervisor):
    """Masked autoencoder whose parts reconstruct what they do not see and may be asked to agree.

    The state dict holds the encoder under ``backbone.`` (timm's names) and the decoder under ``decoder.`` (the names of
    the official MAE release).

    Args:
        backbone: config of :class:`~emae_mm.models.ViTEncoder`.
        decoder: config of :class:`~emae_mm.models.MAEDecoder` without what follows from the encoder.
        masking: config of a mask strategy (:mod:`emae_mm.models.masking`).
        norm_pix: whether targets are normalised per patch.
        reconstruction_weight: weight of the reconstruction loss; 0 leaves it out.
        consistency_weight: weight of the self-consistency loss; 0 leaves it out.
        sc_norm: normaliser of the self-consistency loss, ``"overlap"`` or ``"allpos"``.
        data_preprocessor: mmpretrain's ``SelfSupDataPreprocessor`` settings (mean, std, channel order).

    Raises:
        ConfigError: unknown mask strategy or normaliser, a number of parts that does not divide the number of patches,
            or weights that leave nothing to learn.
    """

    def __init__(
        self,
        backbone: dict,
        decoder: dict | None = None,
        masking: dict | None = None,
        norm_pix: bool = True,
        reconstruction_weight: float = 1.0,
        consistency_weight: float = 1.0,
        sc_norm: str = "overlap",
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(
            {"type": "emae_mm.ViTEncoder", **backbone}, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        encoder = self.backbone
        self.masking = build_masking(masking or {"type": "ParallelMasking"}, encoder.num_patches)
        self.decoder = MODELS.build(
            {
                "type": "emae_mm.MAEDecoder",
                "embed_dim": encoder.embed_dim,
                "grid_size": encoder.grid_size,
                "patch_size": encoder.patch_size,
                "in_chans": encoder.in_chans,
                **(decoder or {}),
            }
        )
        self.norm_pix = norm_pix
        self.reconstruction_weight, self.consistency_weight = reconstruction_weight, consistency_weight
        self.sc_norm = sc_norm
        self._check_losses()

    def _check_losses(self) -> None:
        if self.sc_norm not in CONSISTENCY_NORMS:
            raise ConfigError(f"sc_norm={self.sc_norm!r} is unknown", f"use one of {CONSISTENCY_NORMS}")
        if min(self.reconstruction_weight, self.consistency_weight) < 0:
            raise ConfigError("a loss weight is negative", "use weights of at least 0")
        # Two disjoint or complementary parts, or one part alone, share no hidden patch: there is nothing to agree on.
        parts = self.masking.num_parts
        comparable = parts > 2 or (parts == 2 and self.masking.num_orders == 2)
        if not self.reconstruction_weight and not (self.consistency_weight and comparable):
            raise ConfigError(
                f"reconstruction_weight={self.reconstruction_weight} and consistency_weight={self.consistency_weight} "
                f"with {parts} part(s) leave no loss",
                "give the reconstruction loss a weight, or use at least 3 parts",
            )

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor"):
        """OpenMMLab's entry point: ``mode="loss"`` for a training step, ``"tensor"`` for encoder features."""
        if isinstance(inputs, (list, tuple)):  # the preprocessor of self-supervised data keeps a list of views
            inputs = inputs[0]
        return super().forward(inputs, data_samples, mode)

    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Unmasked encoding: (B, C, H, W) -> (B, 1+N, D)."""
        return self.backbone(inputs)

    def loss(self, inputs: Tensor, data_samples: list | None = None, **kwargs) -> dict[str, Tensor]:
        """Losses of one step on freshly drawn masks: ``loss_reconstruction`` and ``loss_consistency`` (weighted)."""
        orders = self.masking.draw(inputs.shape[0], self.backbone.num_patches, inputs.device)
        return forward_parts(self, inputs, orders).losses

    def encoder_for_export(self) -> torch.nn.Module:
        """The module whose weights downstream tasks start from."""
        return self.backbone


@MODELS.register_module()
class EMAE(MaskedAutoencoder):
    """Efficient masked autoencoders with self-consistency: K disjoint parts, both losses, weights 1 (Eq. 12).

    Args:
        num_parts: K, must divide the number of patches.
        **kwargs: see :class:`MaskedAutoencoder`; ``masking`` replaces ``num_parts`` when given.
    """

    def __init__(self, *args, num_parts: int = 4, masking: dict | None = None, **kwargs):
        super().__init__(*args, masking=masking or {"type": "ParallelMasking", "num_parts": num_parts}, **kwargs)


@MODELS.register_module()
class MAE(MaskedAutoencoder):
    """Masked autoencoders: one random mask, reconstruction only.

    Args:
        mask_ratio: share of the patches that is hidden, in (0, 1).
        **kwargs: see :class:`MaskedAutoencoder`.
    """

    def __init__(self, *args, mask_ratio: float = 0.75, **kwargs):
        masking = {"type": "RandomMasking", "mask_ratio": mask_ratio}
        super().__init__(*args, masking=masking, consistency_weight=0.0, **kwargs)


def forward_parts(model: MaskedAutoencoder, images: Tensor, orders: Tensor) -> PartsOutput:
    """One step of a masked autoencoder on explicit patch orders, with every intermediate result.

    The patch embedding and the targets are computed once per image; all parts of a group go through the encoder in one
    pass and through the decoder in one pass.

    Args:
        model: MAE, EMAE or any :class:`MaskedAutoencoder`.
        images: (B, C, H, W), normalised as the model's data preprocessor does.
        orders: (B, R, N) int64 permutations of the patches; R is ``model.masking.num_orders``. For parallel masking the
            i-th run of N/K entries are the visible patches of part i; for MAE the first entries are the visible ones
            (``noise.argsort(-1)`` for MAE's noise).

    Returns:
        latents, predictions, masks, targets and weighted losses, see :class:`PartsOutput`.
    """
    tokens = model.backbone.embed(images)
    groups = model.masking.split(orders)
    masks = [hidden_mask(ids_keep, tokens.shape[1]) for ids_keep in groups]
    latents = [model.backbone.encode_visible(tokens, ids_keep) for ids_keep in groups]
    predictions = [model.decoder(latent, ids_keep) for latent, ids_keep in zip(latents, groups, strict=True)]
    targets = pixel_targets(images, model.backbone.patch_size, model.norm_pix)

    losses = {}
    if model.reconstruction_weight:
        per_group = [
            reconstruction_loss(prediction, targets, mask) * mask.shape[1]
            for prediction, mask in zip(predictions, masks, strict=True)
        ]
        losses["loss_reconstruction"] = model.reconstruction_weight * sum(per_group) / model.masking.num_parts
    if model.consistency_weight and model.masking.num_parts > 1:
        everything = predictions[0] if len(groups) == 1 else torch.cat(predictions, dim=1)
        every_mask = masks[0] if len(groups) == 1 else torch.cat(masks, dim=1)
        losses["loss_consistency"] = model.consistency_weight * self_consistency_loss(
            everything, every_mask, partitions=model.masking.partitions, norm=model.sc_norm
        )
    return PartsOutput(
        ids_keep=groups,
        latents=[latent.unflatten(0, ids.shape[:2]) for latent, ids in zip(latents, groups, strict=True)],
        predictions=predictions,
        masks=masks,
        targets=targets,
        losses=losses,
    )
