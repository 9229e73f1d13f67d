"""Pre-training methods, one module each."""

from emae_mm.models.algorithms.cae import CAE, DALLETokenizer
from emae_mm.models.algorithms.masked_autoencoder import EMAE, MAE, MaskedAutoencoder, PartsOutput, forward_parts
from emae_mm.models.algorithms.multi_view_mae import MultiViewMAE
from emae_mm.models.algorithms.rc_mae import RCMAE

__all__ = [
    "CAE",
    "EMAE",
    "MAE",
    "RCMAE",
    "DALLETokenizer",
    "MaskedAutoencoder",
    "MultiViewMAE",
    "PartsOutput",
    "forward_parts",
]
