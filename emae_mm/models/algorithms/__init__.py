"""Pre-training methods, one module each."""

from emae_mm.models.algorithms.masked_autoencoder import EMAE, MAE, MaskedAutoencoder, PartsOutput, forward_parts

__all__ = ["EMAE", "MAE", "MaskedAutoencoder", "PartsOutput", "forward_parts"]
