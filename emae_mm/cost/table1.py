"""The EMAE paper's Table I (ViT-L: what pre-training and supervised training take) from counted FLOPs."""

from dataclasses import asdict, dataclass
from typing import Any

from mmengine.config import Config

from emae_mm.cost.measure import flops_per_image
from emae_mm.cost.on_meta import build_model
from emae_mm.cost.schedule import DATA_SETS
from emae_mm.leaderboard.published import load_published
from emae_mm.paths import find_config

TASK = "pretraining-cost"
IMAGES = DATA_SETS["ImageNet-1K"][0]
BATCH = 64  # images that share what is the same for all; hardly matters

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "MAE": ("pretrain/mae_vit-large-p16_32xb128-1600e_in1k", {}),
    "Supervised": (
        "classification/finetune_vit-base-p16_8xb128-100e_in1k",
        {"model.backbone.arch": "large", "model.head.in_channels": 1024},
    ),
    "EMAE": ("pretrain/emae_vit-large-p16_32xb128-300e_in1k", {}),
}
"""Which config's model each row of the table trains."""


@dataclass(frozen=True)
class Row:
    """One method of Table I. FLOPs are of one image, forward and backward.

    Attributes:
        method: as the table calls it.
        epochs: of its training.
        hours: published.
        relative_flops: published FLOPs of an iteration over MAE's.
        encoder: FLOPs of the encoder with patch embedding.
        flops: FLOPs of the whole model.
    """

    method: str
    epochs: float
    hours: float
    relative_flops: float
    encoder: float
    flops: float

    @property
    def whole_run(self) -> float:
        """FLOPs of the training on ImageNet-1K."""
        return self.flops * self.epochs * IMAGES

    @property
    def pflops(self) -> float:
        """PFLOP/s that the published hours imply, all GPUs together (how many is not said)."""
        return self.whole_run / (self.hours * 3600) / 1e15

    @property
    def hours_per_epoch(self) -> float:
        """Published hours over epochs."""
        return self.hours / self.epochs

    def as_dict(self) -> dict[str, float | str]:
        """For JSON."""
        return asdict(self) | dict(whole_run=self.whole_run, pflops=self.pflops, hours_per_epoch=self.hours_per_epoch)


def table1() -> list[Row]:
    """The rows of Table I in their order, MAE first."""
    published: dict[str, dict[str, float]] = {}
    epochs: dict[str, float] = {}
    for result in load_published():
        if result.task == TASK and result.method in CONFIGS:
            published.setdefault(result.method, {})[result.metric] = result.value
            epochs[result.method] = result.pretrain_epochs
    rows = []
    for method, (config, options) in CONFIGS.items():
        cfg = Config.fromfile(find_config(config))
        cfg.merge_from_dict(options)
        flops = flops_per_image(cfg, build_model(cfg), BATCH)
        rows.append(
            Row(
                method=method,
                epochs=epochs[method],
                hours=published[method]["hours"],
                relative_flops=published[method]["relative_FLOPs_per_iteration"],
                encoder=flops.encoder + flops.patch_embedding,
                flops=flops.total,
            )
        )
    return rows


def explanation(rows: list[Row]) -> str:
    """What the counted FLOPs say about the published hours, in words."""
    mae, supervised, emae = rows
    iterations = emae.epochs / mae.epochs
    counted = emae.flops / mae.flops
    pace = emae.hours_per_epoch / mae.hours_per_epoch
    return (
        f"The table's own columns do not give its speed-up: {iterations:g} of MAE's iterations at "
        f"{emae.relative_flops:g} times its FLOPs each are {iterations * emae.relative_flops:g} of its FLOPs, a "
        f"speed-up of {1 / (iterations * emae.relative_flops):.1f}, not the published {mae.hours / emae.hours:.2f}.\n"
        f"Counted with the decoder, an EMAE iteration is {counted:.2f} of MAE's ({emae.encoder / mae.encoder:.2f} for "
        f"the encoder alone) and the whole training takes {emae.whole_run / mae.whole_run:.1%} of MAE's FLOPs: a "
        f"speed-up of {mae.whole_run / emae.whole_run:.2f} where FLOPs set the pace. Supervised training has no "
        f"decoder and takes {supervised.flops / mae.flops:.2f} of MAE's FLOPs an image "
        f"({supervised.encoder / mae.encoder:.2f} for the encoder alone), not {supervised.relative_flops:g}.\n"
        f"The published hours make an EMAE epoch only {pace:.2f} times as long as MAE's. So MAE's run reached "
        f"{mae.pflops / emae.pflops:.2f} of the FLOP/s of EMAE's on what is presumably the same machine: something "
        "else than arithmetic, such as reading images or launching kernels, set its pace. Where MAE's loader keeps "
        f"up, expect a speed-up near {mae.whole_run / emae.whole_run:.1f}. The ratio of 8 in epochs is a choice of "
        "what to compare, not a property of a step."
    )
