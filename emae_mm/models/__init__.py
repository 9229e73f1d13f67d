"""Encoder, decoder, masking, losses and the pre-training algorithms made of them."""

from emae_mm.models.decoder import MAEDecoder
from emae_mm.models.dense import DenseViT
from emae_mm.models.norms import LN2d
from emae_mm.models.preprocess import ImagePreprocessor
from emae_mm.models.pyramid import MultiScaleFromStride16, SimpleFeaturePyramid
from emae_mm.models.vit import ViTEncoder, ViTForClassification

__all__ = [
    "DenseViT",
    "ImagePreprocessor",
    "LN2d",
    "MAEDecoder",
    "MultiScaleFromStride16",
    "SimpleFeaturePyramid",
    "ViTEncoder",
    "ViTForClassification",
]
