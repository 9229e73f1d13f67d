"""Loading and exporting whole models of this project's pre-training."""

from pathlib import Path

import torch
from torch import nn

from emae_mm.checkpoints.reading import read_checkpoint
from emae_mm.checkpoints.report import listed
from emae_mm.errors import CheckpointError
from emae_mm.fileio import write_atomically


def load_pretraining(model: nn.Module, source: str | Path) -> None:
    """Load a full pre-training checkpoint, encoder and decoder, into a masked autoencoder, in place.

    Args:
        model: a :class:`~emae_mm.models.algorithms.MaskedAutoencoder`.
        source: a checkpoint of this project, or an official MAE release (flat names, with decoder).

    Raises:
        CheckpointError: unreadable, or any tensor missing, surplus or of another shape; the first are listed.
    """
    checkpoint = read_checkpoint(source)
    own = model.state_dict()
    tensors = {
        name
        if name in own or name.startswith(("backbone.", "decoder."))
        else f"decoder.{name}"
        if name.startswith("decoder_") or name == "mask_token"
        else f"backbone.{name}": tensor
        for name, tensor in checkpoint.tensors.items()
        if not name.startswith("data_preprocessor.")
    }
    problems = [f"{name}: missing from the checkpoint" for name in own if name not in tensors]
    problems += [f"{name}: not in the model" for name in tensors if name not in own]
    problems += [
        f"{name}: checkpoint {tuple(tensor.shape)}, model {tuple(own[name].shape)}"
        for name, tensor in tensors.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(
            f"checkpoint {source} does not fit the model ({len(problems)} mismatches):{listed(problems)}",
            "use the config it was trained with; an encoder without a decoder goes into transfer configs' 'pretrained'",
        )
    model.load_state_dict(tensors)


def export_encoder(encoder: nn.Module | dict[str, torch.Tensor], path: str | Path, meta: dict) -> None:
    """Write ``{'model': timm-named tensors, 'meta': meta}`` atomically; loadable with ``weights_only=True``.

    Args:
        encoder: a plain :class:`~emae_mm.models.ViTEncoder`, or its state dict.
        path: target file.
        meta: plain values saying how the encoder was made (see the record contract in ``docs/architecture.md``).
    """
    state = encoder.state_dict() if isinstance(encoder, nn.Module) else encoder
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
    write_atomically(path, lambda file: torch.save({"model": tensors, "meta": meta}, file))
