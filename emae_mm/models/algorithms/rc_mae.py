"""RC-MAE: a masked autoencoder that agrees with a slowly following copy of itself (arXiv:2210.02077)."""

import math

import torch
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from emae_mm.errors import ConfigError
from emae_mm.models.algorithms.masked_autoencoder import MaskedAutoencoder
from emae_mm.models.losses import pixel_targets, teacher_loss
from emae_mm.models.masking import PartGroup
from emae_mm.registry import MODELS

EMA_INDEX = ("epoch_local", "global")
EMA_PER = ("micro", "step")


class Teacher(BaseAveragedModel):
    """A copy of encoder and decoder, always in evaluation mode, that follows them by exponential moving average.

    mmengine's averages begin with a copy of the student's weights *after* the first optimiser step; this one begins
    with the weights both start from.

    Attributes:
        steps: number of updates so far, saved with the weights.
    """

    def __init__(self, backbone: nn.Module, decoder: nn.Module):
        super().__init__(nn.ModuleDict({"backbone": backbone, "decoder": decoder}))
        self.eval()

    @property
    def backbone(self) -> nn.Module:
        """The teacher's encoder."""
        return self.module["backbone"]

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, groups: list[PartGroup]) -> list[Tensor]:
        """Predictions (B, K, m, P) of every group's hidden patches from what the student sees, too."""
        tokens, decoder = self.backbone.embed(images), self.module["decoder"]
        return [
            decoder(self.backbone.encode_visible(tokens, group.ids_keep), group.ids_keep, group.ids_hidden)
            for group in groups
        ]

    @torch.no_grad()
    def update_parameters(self, student: list[nn.Module], momentum: float) -> None:
        """theta_t <- momentum * theta_t + (1 - momentum) * theta_s, for all parameters of encoder and decoder."""
        current = [parameter for module in student for parameter in module.parameters()]
        get_ema_multi_avg_fn(momentum)(list(self.parameters()), current, None)
        self.steps += 1


@MODELS.register_module()
class RCMAE(MaskedAutoencoder):
    """Reconstruction-consistent masked autoencoder: MAE that must also predict what its teacher predicts.

    The teacher is a copy of encoder and decoder; it sees the same visible patches and predicts the same hidden ones.
    The mean squared difference of the two predictions is added to MAE's loss. The teacher is what gets exported. Its
    update belongs after the optimiser's: configs need the hook ``emae_mm.FollowStudentHook``.

    The momentum goes from ``momentum`` to ``end_momentum`` along a cosine over the iterations (forward passes, of which
    gradient accumulation makes several a step) of the run. The release means to do that, but indexes the schedule
    with the iteration *within the epoch*, so that the momentum stays at its first value, and updates the teacher after
    each iteration, not after each step. The defaults reproduce the release.

    Args:
        mask_ratio: share of the patches that is hidden, in (0, 1).
        masking: config of a mask strategy in place of MAE's, e.g. ``dict(type="ParallelMasking", num_parts=4)``.
        consistency_weight: weight of EMAE's self-consistency, for strategies with several parts.
        teacher_weight: gamma, the weight of the difference to the teacher; 0 leaves it out.
        momentum: share of its weights the teacher keeps at an update, at first; in [0, 1].
        end_momentum: the same at the end.
        ema_index: ``"epoch_local"`` (release: the schedule starts anew with each epoch) or ``"global"`` (intended).
        ema_per: ``"micro"`` (release: an update after every iteration) or ``"step"`` (after every optimiser step).
        **kwargs: see :class:`MaskedAutoencoder`.

    Raises:
        ConfigError: unknown option, or a value out of range.
    """

    def __init__(
        self,
        *args,
        mask_ratio: float = 0.75,
        masking: dict | None = None,
        consistency_weight: float = 0.0,
        teacher_weight: float = 1.0,
        momentum: float = 0.996,
        end_momentum: float = 1.0,
        ema_index: str = "epoch_local",
        ema_per: str = "micro",
        **kwargs,
    ):
        masking = masking or {"type": "RandomMasking", "mask_ratio": mask_ratio}
        super().__init__(*args, masking=masking, consistency_weight=consistency_weight, **kwargs)
        for name, value, known in (("ema_index", ema_index, EMA_INDEX), ("ema_per", ema_per, EMA_PER)):
            if value not in known:
                raise ConfigError(f"{name}={value!r} is unknown", f"use one of {known}")
        if teacher_weight < 0 or not (0 <= momentum <= 1 and 0 <= end_momentum <= 1):
            raise ConfigError(
                f"teacher_weight={teacher_weight}, momentum={momentum}, end_momentum={end_momentum}: out of range",
                "use a weight of at least 0 and momenta from 0 to 1 (RC-MAE: 1, 0.996 and 1)",
            )
        self.teacher_weight = teacher_weight
        self.momentum, self.end_momentum = momentum, end_momentum
        self.ema_index, self.ema_per = ema_index, ema_per
        self.teacher = Teacher(self.backbone, self.decoder)

    def init_weights(self) -> None:
        """As any masked autoencoder's; the teacher starts from the same weights."""
        super().init_weights()
        self.teacher.update_parameters([self.backbone, self.decoder], momentum=0.0)
        self.teacher.steps.zero_()

    def losses(self, images: Tensor, orders: Tensor) -> dict[str, Tensor]:
        """As :meth:`MaskedAutoencoder.losses`, and ``loss_teacher``, weighted."""
        targets = pixel_targets(images, self.backbone.patch_size, self.norm_pix)
        groups = self.masking.groups(orders, self.predicted_share)
        predictions = self.predictions(images, groups)
        losses = self.losses_of(predictions, groups, targets)
        if self.teacher_weight:
            per_group = [
                teacher_loss(prediction, wanted) * prediction.shape[1]
                for prediction, wanted in zip(predictions, self.teacher(images, groups), strict=True)
            ]
            losses["loss_teacher"] = self.teacher_weight * sum(per_group) / self.masking.num_parts
        return losses

    def update_teacher(self, iteration: int, iterations: int, per_epoch: int, stepped: bool) -> None:
        """Let the teacher follow; to be called after every iteration.

        Args:
            iteration: its number in the run, from 0.
            iterations: those of the run.
            per_epoch: those of an epoch.
            stepped: whether the optimiser made a step in it.
        """
        if self.ema_per == "micro" or stepped:
            index = iteration % per_epoch if self.ema_index == "epoch_local" else iteration
            cosine = (1 + math.cos(math.pi * index / iterations)) / 2
            momentum = self.end_momentum + (self.momentum - self.end_momentum) * cosine
            self.teacher.update_parameters([self.backbone, self.decoder], momentum)

    def encoder_for_export(self) -> nn.Module:
        """The teacher's encoder."""
        return self.teacher.backbone
