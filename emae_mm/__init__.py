"""A downstream-transfer benchmarking suite for masked image modelling.

Importing this package is cheap: neither torch nor OpenMMLab is loaded until a name is used, so that the command line
answers at once. ``import emae_mm.registry`` makes every component available to OpenMMLab configs under the scope
``emae_mm`` (configs do so with ``custom_imports``).
"""

from importlib import import_module

__version__ = "0.1.0"

_LAZY = {
    "EMAE": "emae_mm.models.algorithms",
    "MAE": "emae_mm.models.algorithms",
    "MaskedAutoencoder": "emae_mm.models.algorithms",
    "forward_parts": "emae_mm.models.algorithms",
    "ViTEncoder": "emae_mm.models",
    "load_encoder": "emae_mm.checkpoints",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
