"""Encoder, decoder, masking, losses and the pre-training algorithms made of them."""

from emae_mm.models.decoder import MAEDecoder
from emae_mm.models.vit import ViTEncoder, ViTForClassification

__all__ = ["MAEDecoder", "ViTEncoder", "ViTForClassification"]
