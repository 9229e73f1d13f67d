"""MAE and EMAE: one masked autoencoder, two configurations."""

from dataclasses import dataclass

import torch
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from emae_mm.errors import ConfigError
from emae_mm.models.losses import (
    CONSISTENCY_NORMS,
    hidden_reconstruction_loss,
    pixel_targets,
    runs_consistency_loss,
    self_consistency_loss,
)
from emae_mm.models.masking import PartGroup, build_masking, hidden_mask
from emae_mm.models.pairwise import full_precision
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
        losses: as :meth:`MaskedAutoencoder.losses` gives them; a loss with weight 0 is absent.
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
        parts_per_pass: how many parts' activations are kept at once; None: those of all K. The same gradients in less
            memory (near ``parts_per_pass / K`` of the activations) for one more forward pass.
        predicted_share: share of the hidden patches that is predicted, a fresh random choice each step, in (0, 1].
            Below 1 this is a **departure from the paper**: faster, but other losses and gradients.
        log_prediction_variance: report the variance of the predictions over images and positions, averaged over pixels:
            0 for a collapsed model. By default when there is no reconstruction loss to prevent that.
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
        parts_per_pass: int | None = None,
        predicted_share: float = 1.0,
        log_prediction_variance: bool | None = None,
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
        self.parts_per_pass, self.predicted_share = parts_per_pass, predicted_share
        self.log_prediction_variance = (
            not reconstruction_weight if log_prediction_variance is None else log_prediction_variance
        )
        self._check_losses()
        self._check_savings()

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

    def _check_savings(self) -> None:
        if self.parts_per_pass is not None and self.parts_per_pass < 1:
            raise ConfigError(f"parts_per_pass={self.parts_per_pass} is too small", "use at least 1, or None for all")
        if not 0 < self.predicted_share <= 1:
            raise ConfigError(
                f"predicted_share={self.predicted_share} is not in (0, 1]", "use 1 to predict every hidden patch"
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
        """Losses of one step on freshly drawn masks, see :meth:`losses`."""
        return self.losses(inputs, self.draw(inputs))

    def draw(self, images: Tensor) -> Tensor:
        """Random patch orders (B, R, N) for a batch of images, see :meth:`MaskStrategy.draw`."""
        return self.masking.draw(images.shape[0], self.backbone.num_patches, images.device)

    def losses(self, images: Tensor, orders: Tensor) -> dict[str, Tensor]:
        """Losses of one step on given patch orders; nothing random happens here, so this is what gets compiled.

        Only what the losses read is computed: hidden patches of every part.

        Args:
            images: (B, C, H, W), normalised as the data preprocessor does.
            orders: (B, R, N) int64, see :func:`forward_parts`.

        Returns:
            ``loss_reconstruction`` and ``loss_consistency``, weighted; and ``prediction_variance`` without a gradient
            where it is asked for.
        """
        targets = pixel_targets(images, self.backbone.patch_size, self.norm_pix)
        groups = self.masking.groups(orders, self.predicted_share)
        return self.losses_of(self.predictions(images, groups), groups, targets)

    def predictions(self, images: Tensor, groups: list[PartGroup]) -> list[Tensor]:
        """Predictions (B, K, m, P) of every group's hidden patches, from images (B, C, H, W)."""
        tokens = self.backbone.embed(images)
        return [self.predict(tokens, group) for group in groups]

    def predict(self, tokens: Tensor, group: PartGroup) -> Tensor:
        """Predictions (B, K, m, P) of a group's hidden patches, from the embedded patches (B, N, D) of the images.

        With ``parts_per_pass`` below K only the predictions of all parts are kept; the backward pass computes the
        activations of so many parts anew, one group of parts after the other. The gradient is the same.
        """
        parts, at_once = group.ids_keep.shape[1], self.parts_per_pass
        if not at_once or at_once >= parts or not torch.is_grad_enabled():
            return self._predict(tokens, group.ids_keep, group.ids_hidden)
        passes = zip(group.ids_keep.split(at_once, dim=1), group.ids_hidden.split(at_once, dim=1), strict=True)
        return torch.cat([checkpoint(self._predict, tokens, *ids, use_reentrant=False) for ids in passes], dim=1)

    def _predict(self, tokens: Tensor, ids_keep: Tensor, ids_hidden: Tensor) -> Tensor:
        return self.decoder(self.backbone.encode_visible(tokens, ids_keep), ids_keep, ids_hidden)

    def losses_of(self, predictions: list[Tensor], groups: list[PartGroup], targets: Tensor) -> dict[str, Tensor]:
        """Weighted losses of predictions (B, K, m, P) of the groups' hidden patches; targets (B, N, P)."""
        losses = {}
        if self.reconstruction_weight:
            per_group = [
                hidden_reconstruction_loss(prediction, targets, group.ids_hidden) * prediction.shape[1]
                for prediction, group in zip(predictions, groups, strict=True)
            ]
            losses["loss_reconstruction"] = self.reconstruction_weight * sum(per_group) / self.masking.num_parts
        if self.consistency_weight and self.masking.num_parts > 1:
            losses["loss_consistency"] = self.consistency_weight * self._consistency(predictions, groups, targets)
        if self.log_prediction_variance:
            with torch.no_grad():
                flat = torch.cat([full_precision(prediction).flatten(0, 2) for prediction in predictions])
                losses["prediction_variance"] = flat.var(dim=0).mean()
        return losses

    def _consistency(self, predictions: list[Tensor], groups: list[PartGroup], targets: Tensor) -> Tensor:
        if self.masking.partitions:
            return runs_consistency_loss(predictions[0], self.sc_norm)
        patches = targets.shape[1]
        everywhere = [
            prediction.new_zeros(*prediction.shape[:2], patches, prediction.shape[-1]).scatter(
                2, group.ids_hidden.unsqueeze(-1).expand_as(prediction), prediction
            )
            for prediction, group in zip(predictions, groups, strict=True)
        ]
        # 1 where a part has a prediction: hidden_mask's complement of the predicted patches
        masks = [1.0 - hidden_mask(group.ids_hidden, patches) for group in groups]
        return self_consistency_loss(torch.cat(everywhere, 1), torch.cat(masks, 1), partitions=False, norm=self.sc_norm)

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

    For looking at a model: predictions are made everywhere, also where no loss reads them. Training uses
    :meth:`MaskedAutoencoder.losses`, which gives the same losses and gradients for less.

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
    groups = model.masking.groups(orders, model.predicted_share)
    latents = [model.backbone.encode_visible(tokens, group.ids_keep) for group in groups]
    predictions = [model.decoder(latent, group.ids_keep) for latent, group in zip(latents, groups, strict=True)]
    targets = pixel_targets(images, model.backbone.patch_size, model.norm_pix)
    hidden = [
        everywhere.gather(2, group.ids_hidden.unsqueeze(-1).expand(-1, -1, -1, everywhere.shape[-1]))
        for everywhere, group in zip(predictions, groups, strict=True)
    ]
    return PartsOutput(
        ids_keep=[group.ids_keep for group in groups],
        latents=[latent.unflatten(0, group.ids_keep.shape[:2]) for latent, group in zip(latents, groups, strict=True)],
        predictions=predictions,
        masks=[hidden_mask(group.ids_keep, tokens.shape[1]) for group in groups],
        targets=targets,
        losses=model.losses_of(hidden, groups, targets),
    )
