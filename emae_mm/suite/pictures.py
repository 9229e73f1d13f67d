"""The suite's picture: what every pre-trained method paints under the same masks."""

import random
from pathlib import Path

import torch
from torch import Tensor

from emae_mm.errors import DataError
from emae_mm.evaluation.reconstruction import Reconstruction, draw_panel, parallel_parts, reconstruct
from emae_mm.suite.plan import Stage

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MEASURED_IMAGES = 256
"""Images the printed disagreement is measured on; the picture shows the first few of them."""
LEAKY = "hidden patches are shown with the true brightness and contrast of each patch (targets are normalised)"


def draw_reconstructions(
    trained: list[Stage], data_root: Path, path: Path, spec: dict, note: str
) -> dict[str, Reconstruction]:
    """Reconstruct the same images under the same masks with every method, and draw the first few.

    Args:
        trained: finished pre-training stages.
        data_root: folder searched for images; its ``val`` subfolder where there is one.
        path: the PNG to write.
        spec: ``images``: rows of the picture, ``masks``: disjoint parts, default 4 each; both seeded with 0.
        note: shown below the picture.

    Returns:
        method name to what was measured on up to :data:`MEASURED_IMAGES` images.

    Raises:
        DataError: no image below ``data_root``.
    """
    rows, parts = spec.get("images", 4), spec.get("masks", 4)
    shown, measured, originals, normalised = {}, {}, None, False
    for stage in trained:
        model, mean, std = _load(stage)
        normalised |= model.norm_pix
        if originals is None:
            originals = _images(data_root, model.backbone.grid_size[0] * model.backbone.patch_size)
        images = (originals * 255 - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
        ids_keep = parallel_parts(len(images), model.backbone.num_patches, parts)
        measured[stage.method] = reconstruct(model, images, ids_keep, mean, std)
        shown[stage.method] = measured[stage.method].head(rows)
    leaky = LEAKY if normalised else ""
    draw_panel(originals[:rows], shown, path, note="\n".join(filter(None, [leaky, note])))
    return measured


def _load(stage: Stage) -> tuple[torch.nn.Module, Tensor, Tensor]:
    from mmengine.config import Config

    from emae_mm.checkpoints import load_pretraining
    from emae_mm.engine.hooks import checkpoints_in
    from emae_mm.registry import MODELS

    cfg = Config.fromfile(stage.config)
    cfg.merge_from_dict(stage.options)
    model = MODELS.build(cfg.model)
    load_pretraining(model, checkpoints_in(stage.work_dir)[-1])
    preprocessor = cfg.model.data_preprocessor
    return model.eval(), torch.tensor(preprocessor.mean), torch.tensor(preprocessor.std)


def _images(root: Path, size: int) -> Tensor:
    """Up to MEASURED_IMAGES images, chosen with a fixed seed: (B, 3, size, size) in [0, 1], centre-cropped."""
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    folder = root / "val" if (root / "val").is_dir() else root
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise DataError(f"no image below {folder}", "check the data root")
    chosen = random.Random(0).sample(paths, min(MEASURED_IMAGES, len(paths)))
    return torch.stack([pil_to_tensor(center_crop(resize(_open(p), size), [size, size])) for p in chosen]) / 255.0


def _open(path: Path):
    from PIL import Image

    return Image.open(path).convert("RGB")
