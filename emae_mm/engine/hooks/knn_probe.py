"""A k-NN probe of the encoder while it is pre-trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.hooks import Hook
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader

from emae_mm.engine.hooks.views import centre_view
from emae_mm.engine.knn_features import common_classes, extract_features, knn_metrics
from emae_mm.engine.layer_decay import unwrap
from emae_mm.engine.undisturbed import undisturbed
from emae_mm.errors import ConfigError
from emae_mm.registry import DATASETS, HOOKS


@HOOKS.register_module()
class KNNProbeHook(Hook):
    """Every n epochs classifies labelled images by the nearest neighbours of the current encoder's features.

    Same features, data and votes as the k-NN configs: mean of the patch tokens after the final norm, images resized
    and centre-cropped. The training goes on as if nothing had happened, bit for bit. Logs ``knn/top1`` (and
    ``knn/top5`` with more than five classes), in per cent, and the same for every k.

    Args:
        interval: epochs between two probes.
        labelled_root: ImageNet-style folder; by default the training data's root.
        bank: its folder of labelled images, ``<bank>/<class>/...``.
        queries: its folder of images to classify.
        bank_images: use so many of the bank's images, evenly spread over the sorted list, hence over the classes;
            None: all.
        query_images: likewise.
        resize: the short edge before the centre crop; by default 8/7 of the encoder's image size, 256 for 224.
        batch_size: images a process at a time.
        num_workers: of each data loader; by default as many as the training's.
        k: numbers of neighbours.
        primary_k: the one reported as ``knn/top1``.
        temperature: see :func:`~emae_mm.evaluation.knn.knn_predict`.
        weighting: likewise.

    Raises:
        ConfigError: (before training) an impossible value, no labelled folder, or FSDP.
        DataError: (before training) a folder is missing, or bank and queries have different classes.
    """

    priority = "LOW"

    def __init__(
        self,
        interval: int = 10,
        labelled_root: str = "",
        bank: str = "train",
        queries: str = "val",
        bank_images: int | None = 50_000,
        query_images: int | None = 10_000,
        resize: int | None = None,
        batch_size: int = 256,
        num_workers: int | None = None,
        k: Sequence[int] = (20,),
        primary_k: int = 20,
        temperature: float = 0.07,
        weighting: str = "softmax",
    ):
        if interval < 1:
            raise ConfigError(f"KNNProbeHook: interval={interval} epochs", "use at least 1")
        if primary_k not in k:
            raise ConfigError(f"KNNProbeHook: primary_k={primary_k} is not among k={tuple(k)}", "add it to k")
        self.interval, self.labelled_root, self.resize = interval, labelled_root, resize
        self.folders = {"bank": (bank, bank_images), "queries": (queries, query_images)}
        self.batch_size, self.num_workers = batch_size, num_workers
        self.k, self.primary_k = tuple(k), primary_k
        self.votes = dict(temperature=temperature, weighting=weighting)
        self.loaders: dict[str, DataLoader] = {}

    def before_train(self, runner) -> None:
        if isinstance(runner.model, FullyShardedDataParallel):
            raise ConfigError("the k-NN probe does not run under FSDP", "leave out knn_probe or --fsdp")
        with undisturbed(unwrap(runner.model)) as model:
            encoder = model.encoder_for_export()
            edge = self.resize or round(max(encoder.grid_size) * encoder.patch_size * 8 / 7)
            pipeline = [*centre_view(encoder, edge), dict(type="mmpretrain.PackInputs")]
            self.loaders = {name: self._loader(runner, pipeline, *given) for name, given in self.folders.items()}
        common_classes(self.loaders["bank"], self.loaders["queries"])
        if max(self.k) > len(self.loaders["bank"].dataset):
            raise ConfigError(
                f"k={self.k} does not fit a bank of {len(self.loaders['bank'].dataset)} images", "use a smaller k"
            )

    def after_train_epoch(self, runner) -> None:
        if not self.every_n_epochs(runner, self.interval):
            return
        metrics = self.measure(unwrap(runner.model))
        runner.logger.info(
            f"k-NN probe after epoch {runner.epoch + 1}: "
            + ", ".join(
                f"{name.removeprefix('knn/')} {value:.2f}"
                for name, value in metrics.items()
                if len(self.k) > 1 or "_k" not in name  # with one k the same numbers
            )
        )
        runner.visualizer.add_scalars(metrics, step=runner.iter)

    def measure(self, model) -> dict[str, float]:
        """The metrics of a pre-training model's present encoder; all processes must call this."""
        with undisturbed(model):
            device = next(model.parameters()).device
            encoder = model.encoder_for_export().to(device).eval()

            def encode(images):
                images = images[0] if isinstance(images, (list, tuple)) else images
                return encoder(images)[:, 1:].mean(dim=1)

            found = {
                name: extract_features(loader, model.data_preprocessor, encode) for name, loader in self.loaders.items()
            }
            classes = common_classes(self.loaders["bank"], self.loaders["queries"])
            return knn_metrics(
                *found["bank"], *found["queries"], num_classes=len(classes), k=self.k, primary_k=self.primary_k,
                **self.votes,
            )  # fmt: skip

    def _loader(self, runner, pipeline: list[dict], folder: str, count: int | None) -> DataLoader:
        root = self.labelled_root or getattr(runner.train_dataloader.dataset, "data_root", "")
        if not root or not (Path(root) / folder).is_dir():
            raise ConfigError(
                f"the k-NN probe finds no labelled images in {str(Path(root or '?') / folder)!r}",
                "set knn_probe.labelled_root to a folder with train/<class>/ and val/<class>/",
            )
        dataset = DATASETS.build(
            dict(type="emae_mm.ImageFolder", data_root=str(root), data_prefix=folder, pipeline=pipeline)
        )
        if count is not None and count < len(dataset):
            dataset.get_subset_(np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist())
        workers = runner.train_dataloader.num_workers if self.num_workers is None else self.num_workers
        return runner.build_dataloader(
            dict(
                dataset=dataset, batch_size=self.batch_size, num_workers=workers,
                sampler=dict(type="DefaultSampler", shuffle=False), collate_fn=dict(type="default_collate"),
            ),
            seed=runner.seed,
        )  # fmt: skip
