"""Encoder, decoder, masking, losses and the pre-training algorithms made of them."""

from emae_mm.models.decoder import MAEDecoder
from emae_mm.models.dense import DenseViT
from emae_mm.models.preprocess import ImagePreprocessor
from emae_mm.models.pyramid import MultiScaleFromStride16
from emae_mm.models.vit import ViTEncoder, ViTForClassification

__all__ = [
    "DenseViT",
    "ImagePreprocessor",
    "MAEDecoder",
    "MultiScaleFromStride16",
    "ViTEncoder",
    "ViTForClassification",
]
