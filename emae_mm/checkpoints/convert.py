"""``emae-mm convert``: an encoder from one library's checkpoint into another's."""

import re
from collections.abc import Sequence
from pathlib import Path

from emae_mm.checkpoints.describe import find_encoder, heads_of
from emae_mm.checkpoints.formats import EncoderTensors, Format, all_formats, targets
from emae_mm.checkpoints.formats.base import BLOCK_NAMES, FC_NORM, FIRST, REASONS, depth_of, first_match
from emae_mm.checkpoints.reading import Checkpoint, read_checkpoint
from emae_mm.checkpoints.report import LoadReport, count, listed, permission
from emae_mm.errors import CheckpointError, ConfigError
from emae_mm.quiet import silence_known_noise


def convert(
    source: str | Path,
    out: str | Path,
    to: str,
    allow_missing: Sequence[str] = (),
    num_heads: int | None = None,
    force: bool = False,
) -> LoadReport:
    """Write the encoder of a checkpoint in another format.

    Args:
        source: see :func:`~emae_mm.checkpoints.read_checkpoint`.
        out: the file, or for ``hf`` the folder, to write.
        to: name of a format that can be written: see :func:`~emae_mm.checkpoints.formats.targets`.
        allow_missing: names or shell-like patterns of encoder tensors that may be left over or missing.
        num_heads: attention heads, where neither the checkpoint nor a standard architecture says them.
        force: whether to overwrite.

    Returns:
        what was written, left over and missing.

    Raises:
        ConfigError: no such format, ``out`` exists, or ``num_heads`` contradicts the checkpoint.
        CheckpointError: unreadable, unsafe, no plain ViT, or the format cannot hold all of it.
    """
    if to not in targets():
        raise ConfigError(f"--to {to} is no format that can be written", f"use one of {', '.join(targets())}")
    out = Path(out)
    if out.exists() and not force:
        raise ConfigError(f"{out} exists", "give another name, or --force to overwrite it")
    checkpoint = read_checkpoint(source)
    name, found = find_encoder(checkpoint)
    found.num_heads = _agreed_heads(found, num_heads)
    report = LoadReport(checkpoint.source, name, beside=found.beside, meta=checkpoint.meta)
    _select(found, all_formats()[to], permission(allow_missing), report)
    _check_shapes(found, checkpoint.source)
    all_formats()[to].write(found, _meta(checkpoint, name), out)
    return report


def convert_command(
    source: str, out: Path, to: str, allow_missing: Sequence[str], num_heads: int | None, force: bool
) -> None:
    """Convert and print the report; see :func:`convert`."""
    silence_known_noise()
    report = convert(source, out, to, allow_missing, num_heads, force)
    print(f"{report}\nwritten: {out} ({to}, {count(report.used, 'tensors').partition(' [')[0]})")


def _agreed_heads(found: EncoderTensors, given: int | None) -> int | None:
    known = found.num_heads
    if given is not None and known is not None and given != known:
        raise ConfigError(f"--num-heads {given} contradicts the checkpoint, which says {known}", "leave it out")
    heads = given or heads_of(found)
    width = len(found.tensors[FIRST]) if FIRST in found.tensors else 0
    if heads and width % heads:
        raise ConfigError(f"--num-heads {heads} does not divide the width {width}", "give the model's own number")
    return heads


def _select(found: EncoderTensors, target: Format, allowed, report: LoadReport) -> None:
    """Keep what the target holds; anything else, and anything missing, must be allowed by name.

    Raises:
        CheckpointError: something is left over or missing, not by permission.
    """
    problems = []
    wanted = _plain_names(found)
    needed = [name for name in wanted if not any(re.fullmatch(pattern, name) for pattern in target.optional)]
    report.fresh = [name for name in needed if name not in found.tensors]
    problems += [f"{name}: missing from the checkpoint" for name in report.fresh if not allowed(name)]
    for name in list(found.tensors):
        if name in wanted or any(re.fullmatch(pattern, name) for pattern in target.holds):
            report.used.append(name)
            continue
        report.unused.append(name)
        del found.tensors[name]
        if not allowed(name):
            why = first_match(REASONS, name)
            problems.append(f"{name}: not in the format {target.name}" + (f" ({why})" if why else ""))
    if problems:
        raise CheckpointError(
            f"the encoder of {report.source} ({report.format}) cannot be written as {target.name} completely "
            f"({len(report.used)} of {len(report.used) + len(report.unused)} encoder tensors can):{listed(problems)}",
            "choose a format that holds them, or name what may be left out: --allow-missing NAME ..., or patterns "
            "like 'norm.*'",
        )


def _plain_names(found: EncoderTensors) -> list[str]:
    """What a plain ViT of that depth has; a model pooled before its norm has ``fc_norm`` instead of ``norm``."""
    pooled = any(re.fullmatch(FC_NORM, name) for name in found.tensors) and "norm.weight" not in found.tensors
    norm = [] if pooled else ["norm.weight", "norm.bias"]
    blocks = [f"blocks.{block}.{name}" for block in range(depth_of(found.tensors)) for name in BLOCK_NAMES]
    return ["cls_token", "pos_embed", FIRST, FIRST.replace("weight", "bias"), *blocks, *norm]


def _check_shapes(found: EncoderTensors, source: str) -> None:
    """Refuse an MLP that is not one matrix up and one down under the same names (timm's packed SwiGLU)."""
    for block in range(depth_of(found.tensors)):
        up, down = (found.tensors.get(f"blocks.{block}.mlp.{name}.weight") for name in ("fc1", "fc2"))
        if up is not None and down is not None and up.shape != down.shape[::-1]:
            raise CheckpointError(
                f"checkpoint {source}: block {block} has an MLP of {tuple(up.shape)} and {tuple(down.shape)}, which is "
                "no plain ViT's (SwiGLU, as in DINOv2's giant, has another function)",
                "give a plain ViT",
            )


def _meta(checkpoint: Checkpoint, name: str) -> dict:
    """What goes on beside the encoder: this project's own words, or the method that a format stands for."""
    if "method" in checkpoint.meta:
        return dict(checkpoint.meta)
    return {"method": "MAE"} if name == "mae" or checkpoint.facts.get("model_type") == "vit_mae" else {}
