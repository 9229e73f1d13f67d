"""Putting a checkpoint's tensors into an encoder: completely, or with an error that lists what does not fit."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.logging import print_log
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from emae_mm.checkpoints.reading import Checkpoint, read_checkpoint
from emae_mm.errors import CheckpointError
from emae_mm.fileio import write_atomically

ENCODER_PREFIXES = ("teacher.module.backbone.", "backbone.", "encoder.")
"""Prefixes under which training checkpoints keep the encoder; RC-MAE's teacher, which is transferred, comes first."""

NOT_ENCODER = re.compile(r"(decoder|head|fc_norm|neck|mask_token|data_preprocessor)([._]|$)")
"""Top-level names that pre-training and classification checkpoints have beside the encoder."""

LAYER_SCALE = re.compile(r"\.ls[12]\.gamma$")

LISTED = 5
"""How many offending parameters an error names before it only counts the rest."""


@dataclass
class LoadReport:
    """What happened to the tensors: names used as they are, resampled, left over, and parameters that start fresh."""

    source: str
    used: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    meta: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"encoder from {self.source}: {len(self.used)} tensors used"
            + (f", resampled {self.resampled}" if self.resampled else "")
            + (f", fresh {_shorten(self.fresh)}" if self.fresh else "")
            + (f", not needed {_shorten(self.unused)}" if self.unused else "")
        )


def _shorten(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def encoder_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names, whatever prefix they had; decoder and heads left out."""
    tensors = checkpoint.tensors
    for prefix in ENCODER_PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return {name: tensor for name, tensor in tensors.items() if not NOT_ENCODER.match(name)}


def load_encoder(encoder: nn.Module, source: str | Path) -> LoadReport:
    """Load a plain ViT checkpoint into an encoder, in place.

    Every parameter of the encoder must be in the checkpoint with its shape, except those the encoder's class lists in
    ``fresh_keys()`` (LayerScale, relative positions...), and every encoder tensor of the checkpoint must be used,
    except those in ``unused_keys()`` (a final norm the task does not have...). ``pos_embed`` of another grid is
    resampled bicubically.

    Args:
        encoder: a :class:`~emae_mm.models.ViTEncoder` or subclass.
        source: see :func:`~emae_mm.checkpoints.read_checkpoint`.

    Raises:
        CheckpointError: unreadable, or of another architecture; the first mismatches are listed.
    """
    checkpoint = read_checkpoint(source)
    found = encoder_tensors(checkpoint)
    own = encoder.state_dict()
    report = LoadReport(checkpoint.source, meta=checkpoint.meta)
    positions = found.get("pos_embed")
    if positions is not None and "pos_embed" in own and (old_grid := _other_grid(positions, own["pos_embed"])):
        found["pos_embed"] = resample_abs_pos_embed(positions, list(encoder.grid_size), old_grid, num_prefix_tokens=1)
        report.resampled.append("pos_embed")

    may_be_fresh, may_be_unused = _patterns(encoder, "fresh_keys"), _patterns(encoder, "unused_keys")
    problems = []
    for name, parameter in own.items():
        if name in found:
            if found[name].shape != parameter.shape:
                problems.append(f"{name}: checkpoint {tuple(found[name].shape)}, model {tuple(parameter.shape)}")
            else:
                report.used.append(name)
        elif may_be_fresh(name):
            report.fresh.append(name)
        else:
            problems.append(f"{name}: missing from the checkpoint")
    for name in found:
        if name not in own:
            if may_be_unused(name):
                report.unused.append(name)
            else:
                problems.append(f"{name}: not in the model")
    if problems:
        more = f"\n    ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckpointError(
            f"checkpoint {checkpoint.source} does not fit the encoder ({len(problems)} mismatches):\n    "
            + "\n    ".join(problems[:LISTED])
            + more,
            _mend(found, own),
        )
    encoder.load_state_dict({name: found[name] for name in report.used}, strict=False)
    print_log(str(report), logger="current")
    return report


def _mend(found: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """What to do about a checkpoint that does not fit."""
    gammas = [name for name in found if LAYER_SCALE.search(name) and name not in own]
    if gammas:
        start = found[gammas[0]].abs().mean().item()
        return (
            "the checkpoint has LayerScale (as CAE's), this config's encoder has none: add --cfg-options "
            "model.backbone.init_values=0.1 (any number will do: the checkpoint's values, about "
            f"{start:.2g}, replace it)"
        )
    return "use the config of the checkpoint's architecture (width, depth, patch size), or another checkpoint"


def _patterns(encoder: nn.Module, method: str):
    patterns = [re.compile(p) for p in getattr(encoder, method, tuple)()]
    return lambda name: any(p.fullmatch(name) for p in patterns)


def _other_grid(theirs: Tensor, ours: Tensor) -> list[int] | None:
    """The square grid of position embeddings that differ from ours in their number only, else None."""
    if theirs.ndim != 3 or theirs.shape[1] == ours.shape[1] or theirs.shape[2] != ours.shape[2]:
        return None
    side = math.isqrt(theirs.shape[1] - 1)
    return [side, side] if side * side == theirs.shape[1] - 1 else None


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
            f"checkpoint {source} does not fit the model ({len(problems)} mismatches):\n    "
            + "\n    ".join(problems[:LISTED]),
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
