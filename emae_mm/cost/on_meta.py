"""A config's model and one training step of it on the meta device: shapes and types, nothing computed or stored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from emae_mm.errors import ConfigError
from emae_mm.registry import MODELS


def build_model(cfg: Config) -> nn.Module:
    """The model on the meta device, in training mode, without weights.

    Raises:
        ConfigError: this kind of model cannot be counted; says which can.
    """
    spec = cfg.model
    kind = str(spec.get("type", "")).rpartition(".")[2]
    if kind == "CAE":
        raise ConfigError(
            "CAE's cost cannot be counted: mmpretrain's encoder picks visible patches by the values of a mask, and "
            "there are no values where nothing is computed",
            "count MAE, EMAE, RC-MAE, Multi-View MAE or a classification config",
        )
    if not cfg.get("train_cfg") or not cfg.get("train_dataloader"):
        raise ConfigError("the config trains nothing, so there is no training to count", "give a config that trains")
    init_default_scope(cfg.get("default_scope", "mmengine"))
    try:
        with torch.device("meta"):
            model = MODELS.build(spec)
    except (NotImplementedError, RuntimeError) as error:
        raise _not_countable(kind, error) from error
    if not hasattr(model, "losses") and kind != "ImageClassifier":
        raise ConfigError(f"the cost of a {kind} cannot be counted", "give a pre-training or a classification config")
    _replace_sync_norms(model)
    return model.train()


def _replace_sync_norms(model: nn.Module) -> None:
    """SyncBatchNorm, which refuses to run elsewhere than on a GPU, by batch norm of the same size."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.SyncBatchNorm):
                setattr(module, name, nn.BatchNorm1d(child.num_features, device="meta"))


def image_size(cfg: Config) -> tuple[int, int, int]:
    """Channels, height and width of the images a config's model takes."""
    backbone = cfg.model.backbone
    size = backbone.get("img_size", 224)
    return (backbone.get("in_chans", 3), *((size, size) if isinstance(size, int) else size))


def make_batch(cfg: Config, images: int) -> tuple[Tensor | list[Tensor], list]:
    """What the data preprocessor would hand to the model: float32 images (views where it takes several) and samples."""
    shape = (images, *image_size(cfg))
    if str(cfg.model.type).endswith("MultiViewMAE") and cfg.model.get("two_targets", True):
        return [torch.empty(shape, device="meta") for _ in range(2)], []
    batch = torch.empty(shape, device="meta")
    if "head" not in cfg.model:
        return batch, []
    from mmpretrain.structures import DataSample

    scores = torch.empty(cfg.model.head.num_classes, device="meta")
    return batch, [DataSample().set_gt_score(scores) for _ in range(images)]


def training_step(model: nn.Module, batch: Tensor | list[Tensor], samples: list) -> Callable[[], Tensor]:
    """The forward pass of a training step as a function that returns the scalar loss.

    Raises:
        ConfigError: (when called) the step depends on values, which meta tensors do not have.
    """

    def step() -> Tensor:
        with _autocast_knows_meta():
            try:
                return model.parse_losses(model(batch, samples, mode="loss"))[0]
            except (NotImplementedError, RuntimeError) as error:
                raise _not_countable(type(model).__name__, error) from error

    return step


@contextmanager
def _autocast_knows_meta() -> Iterator[None]:
    """``torch.autocast("meta", enabled=False)`` raises where it could do nothing; in here it does nothing."""
    known = torch.autocast

    def autocast(device_type: str, *args, **kwargs):
        return nullcontext() if device_type == "meta" else known(device_type, *args, **kwargs)

    with patch.object(torch, "autocast", autocast):
        yield


def _not_countable(kind: str, error: Exception) -> ConfigError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ConfigError(
        f"the cost of this {kind} cannot be counted without computing: {lines[0]}",
        "count a config without what needs values, or measure it with benchmarks/pretrain_step.py",
    )
