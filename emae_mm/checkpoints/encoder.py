"""Putting a checkpoint's tensors into an encoder: completely, or with an error that lists what does not fit."""

import re
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor, nn

from emae_mm.checkpoints.describe import find_encoder
from emae_mm.checkpoints.formats.base import FC_NORM, FIRST, LAYER_SCALE, REASONS, EncoderTensors, first_match
from emae_mm.checkpoints.reading import read_checkpoint
from emae_mm.checkpoints.report import LoadReport, listed, permission
from emae_mm.checkpoints.resample import resample
from emae_mm.errors import CheckpointError


def load_encoder(
    encoder: nn.Module,
    source: str | Path,
    allow_missing: Sequence[str] = (),
    resample_patch_embed: bool = False,
) -> LoadReport:
    """Load a ViT's checkpoint of any known format into an encoder, in place.

    Every parameter of the encoder must be in the checkpoint with its shape, except those the encoder's class lists in
    ``fresh_keys()`` (LayerScale, relative positions...), and every encoder tensor of the checkpoint must be used,
    except those in ``unused_keys()`` (a final norm the task does not have...). Positions of another grid are resampled
    (:func:`~emae_mm.checkpoints.resample.resample`).

    Args:
        encoder: a :class:`~emae_mm.models.ViTEncoder` or subclass.
        source: see :func:`~emae_mm.checkpoints.read_checkpoint`.
        allow_missing: names or shell-like patterns of tensors that may be left over, start fresh, or both where
            their shapes differ.
        resample_patch_embed: bring a patch embedding of another patch size to the encoder's.

    Returns:
        what happened to each tensor; it is logged, too.

    Raises:
        CheckpointError: unreadable, unsafe, of no known format, or of another architecture; the first mismatches are
            listed.
    """
    checkpoint = read_checkpoint(source)
    name, found = find_encoder(checkpoint)
    _check_heads(checkpoint.source, found, encoder)
    own = encoder.state_dict()
    resampled = resample(found.tensors, own, encoder.position_grid, _windows(encoder), resample_patch_embed)
    report = LoadReport(checkpoint.source, name, resampled=resampled, beside=found.beside, meta=checkpoint.meta)
    problems = compare(found.tensors, own, encoder, permission(allow_missing), report)
    if problems:
        raise CheckpointError(
            f"checkpoint {checkpoint.source} ({name}) does not fit the encoder ({len(problems)} mismatches; "
            f"{len(report.used)} of {len(found.tensors)} encoder tensors fit):{listed(problems)}",
            _mend(found.tensors, own),
        )
    encoder.load_state_dict({name: found.tensors[name] for name in report.used}, strict=False)
    print_log(str(report), logger="current")
    return report


def compare(found: dict[str, Tensor], own: dict[str, Tensor], encoder: nn.Module, allowed, report: LoadReport) -> list:
    """Sort names into the report; what may be neither left over nor fresh is returned as a list of problems."""
    may_be_fresh, may_be_unused = _patterns(encoder, "fresh_keys"), _patterns(encoder, "unused_keys")
    problems = []
    for name, parameter in own.items():
        fits = name in found and found[name].shape == parameter.shape
        if fits:
            report.used.append(name)
        elif allowed(name) or (name not in found and may_be_fresh(name)):
            report.fresh.append(name)
        elif name in found:
            problems.append(f"{name}: checkpoint {tuple(found[name].shape)}, model {tuple(parameter.shape)}")
        else:
            problems.append(f"{name}: missing from the checkpoint")
    for name in found:
        if name in own:
            report.unused += [name] if name in report.fresh else []
        elif re.fullmatch(FC_NORM, name):
            report.beside[name] = "it belongs to a task's head"
        elif may_be_unused(name) or allowed(name):
            report.unused.append(name)
        else:
            why = first_match(REASONS, name)
            problems.append(f"{name}: not in the model" + (f" ({why})" if why else ""))
    return problems


def _check_heads(source: str, found: EncoderTensors, encoder: nn.Module) -> None:
    if found.num_heads is not None and found.num_heads != encoder.num_heads:
        raise CheckpointError(
            f"checkpoint {source} has {found.num_heads} attention heads, this config's encoder {encoder.num_heads}",
            "use the config of the checkpoint's architecture: other heads are another function of the same tensors",
        )


def _mend(found: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """What to do about a checkpoint that does not fit."""
    gammas = [name for name in found if re.fullmatch(LAYER_SCALE, name) and name not in own]
    if gammas:
        start = found[gammas[0]].abs().mean().item()
        return (
            "the checkpoint has LayerScale (as CAE's), this config's encoder has none: add --cfg-options "
            "model.backbone.init_values=0.1 (any number will do: the checkpoint's values, about "
            f"{start:.2g}, replace it)"
        )
    theirs, ours = found.get(FIRST), own.get(FIRST)
    if theirs is not None and ours is not None and theirs.shape[:2] == ours.shape[:2] and theirs.shape != ours.shape:
        sides = f"{theirs.shape[-1]} x {theirs.shape[-1]} pixels, this config's of {ours.shape[-1]} x {ours.shape[-1]}"
        return (
            f"the checkpoint's patches are of {sides}: add --resample-patch-embed "
            "(pretrained_options=dict(resample_patch_embed=True) in a config) to resample the patch embedding, or "
            f"--cfg-options model.backbone.patch_size={theirs.shape[-1]} to keep it"
        )
    if any(re.fullmatch(FC_NORM, name) for name in found) and "norm.weight" in own and "norm.weight" not in found:
        return (
            "the checkpoint was fine-tuned on the mean of the patches, without a final norm: use it with pool='avg', "
            "or add --allow-missing 'norm.*' to start a new final norm"
        )
    return (
        "use the config of the checkpoint's architecture (width, depth, patch size), or another checkpoint; where the "
        "tensors listed may be left out on purpose, name them: --allow-missing NAME ..., or patterns like 'norm.*'"
    )


def _windows(encoder: nn.Module):
    """The grid that a relative position table of the encoder is stored for, by the table's name."""
    return lambda name: getattr(encoder.get_submodule(name.rpartition(".")[0]), "grid_size", None)


def _patterns(encoder: nn.Module, method: str):
    patterns = [re.compile(p) for p in getattr(encoder, method, tuple)()]
    return lambda name: any(p.fullmatch(name) for p in patterns)
