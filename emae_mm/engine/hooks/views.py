"""How images are prepared where a model is looked at rather than trained."""

from torch import nn


def centre_view(encoder: nn.Module, edge: int | None = None) -> list[dict]:
    """Pipeline steps: load, resize the short edge (by default to the encoder's image size), centre-crop."""
    height, width = (side * encoder.patch_size for side in encoder.grid_size)
    edge = edge or max(height, width)
    return [
        dict(type="emae_mm.LoadImage"),
        dict(type="mmpretrain.ResizeEdge", scale=edge, edge="short", backend="pillow", interpolation="bicubic"),
        dict(type="mmpretrain.CenterCrop", crop_size=(width, height)),
    ]
