"""A picture of what the model paints, every few epochs, of the same images under the same masks."""

from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import Dataset

from emae_mm.engine.hooks.views import centre_view
from emae_mm.engine.layer_decay import unwrap
from emae_mm.engine.undisturbed import undisturbed
from emae_mm.errors import ConfigError, DataError
from emae_mm.evaluation.reconstruction import LEAKY, draw_panel, parallel_parts, reconstruct
from emae_mm.models.algorithms import MaskedAutoencoder
from emae_mm.registry import DATASETS, HOOKS, TRANSFORMS

FOLDER = "reconstructions"


@HOOKS.register_module()
class ReconstructionPanelHook(Hook):
    """Every n epochs draws original, masked and painted images into ``reconstructions/epoch_<n>.png``.

    The picture also goes to the visualizer's back ends as ``reconstruction``. Images are resized and centre-cropped;
    the masks are a fixed partition. The training goes on as if nothing had happened, bit for bit. Models that are no
    :class:`~emae_mm.models.algorithms.MaskedAutoencoder`, and FSDP, get no picture and a line in the log that says so.

    Args:
        interval: epochs between two pictures.
        images: the first so many images are shown; broken files are passed over.
        masks: disjoint visible parts of each image; must divide the number of patches; by default 4, or the smallest
            number that does.
        folder: a folder of images to take them from; by default the training data.

    Raises:
        ConfigError: (before training) an impossible value.
        DataError: (before training) there is no image.
    """

    priority = "LOW"

    def __init__(self, interval: int = 20, images: int = 4, masks: int | None = None, folder: str = ""):
        if min(interval, images) < 1 or (masks is not None and masks < 2):
            raise ConfigError(
                f"ReconstructionPanelHook: interval={interval}, images={images}, masks={masks}",
                "use at least 1 epoch, 1 image and 2 masks",
            )
        self.interval, self.count, self.masks, self.folder = interval, images, masks, folder
        self.originals: Tensor | None = None

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        if isinstance(runner.model, FullyShardedDataParallel) or not isinstance(model, MaskedAutoencoder):
            reason = "under FSDP" if isinstance(model, MaskedAutoencoder) else f"of {type(model).__name__}"
            runner.logger.info(f"no reconstruction panel is drawn {reason}")
        else:  # on all processes: an error must not strike one of them alone
            with undisturbed(model):
                self.originals = first_images(self._dataset(runner), self.count, model.backbone)
                patches = model.backbone.num_patches
                if self.masks is None:
                    self.masks = next(parts for parts in (4, *range(2, patches + 1)) if patches % parts == 0)
                parallel_parts(1, patches, self.masks)  # refuses an impossible number now

    def after_train_epoch(self, runner) -> None:
        if self.originals is not None and is_main_process() and self.every_n_epochs(runner, self.interval):
            path = Path(runner.work_dir) / FOLDER / f"epoch_{runner.epoch + 1}.png"
            with undisturbed(unwrap(runner.model)) as model:
                self._draw(model, path, f"epoch {runner.epoch + 1}")
            from PIL import Image

            runner.visualizer.add_image("reconstruction", np.asarray(Image.open(path).convert("RGB")), runner.iter)

    def _draw(self, model: MaskedAutoencoder, path: Path, epoch: str) -> None:
        preprocessor = model.data_preprocessor
        mean, std = preprocessor.mean.flatten(), preprocessor.std.flatten()
        originals = self.originals.to(mean.device)
        images = (originals * 255 - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        ids_keep = parallel_parts(len(images), model.backbone.num_patches, self.masks).to(mean.device)
        result = reconstruct(model, images, ids_keep, mean, std)
        note = "\n".join(filter(None, [LEAKY if model.norm_pix else "", epoch]))
        draw_panel(originals, {type(model).__name__: result}, path, note=note)

    def _dataset(self, runner) -> Dataset:
        if not self.folder:
            return runner.train_dataloader.dataset
        return DATASETS.build(
            dict(type="emae_mm.ImageFolder", data_root=self.folder, with_label=False, pipeline=[], lazy_init=False)
        )


def first_images(dataset: Dataset, count: int, encoder) -> Tensor:
    """The first usable images of a data set, resized and centre-cropped for an encoder: (B, 3, H, W) RGB in [0, 1].

    Raises:
        DataError: there is none.
    """
    load, found, broken = Compose([TRANSFORMS.build(step) for step in centre_view(encoder)]), [], None
    for index in range(len(dataset)):
        try:
            found.append(load(dataset.get_data_info(index))["img"][..., ::-1].copy())
        except DataError as error:
            broken = error
        if len(found) == count:
            break
    if not found:
        raise broken or DataError("the reconstruction panel has no image", "check its folder, or the training data")
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2) / 255.0
