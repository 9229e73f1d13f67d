"""Reading checkpoint files without running code from them."""

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emae_mm.errors import CheckpointError

TIMM_PREFIX = "timm:"
REASON = re.compile(r"WeightsUnpickler error:\s*(\S.*)")
"""Where torch's safe unpickler says what it refuses, in a message of many lines."""
DAMAGED = re.compile(r"Unsupported operand")
"""What it says of bytes that are no pickle, or a pickle of a protocol torch does not write."""


@dataclass
class Checkpoint:
    """A flat state dict and what is known about it.

    Attributes:
        tensors: parameter name to tensor; wrapper prefixes (``module.``) removed.
        meta: the ``meta`` a pre-training run of this project wrote (method, arch, data, epochs...), or empty.
        source: where it came from, for messages.
    """

    tensors: dict[str, Tensor]
    source: str
    meta: dict = field(default_factory=dict)


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint: a ``.safetensors`` file, a torch file (``weights_only``), or ``timm:NAME``.

    Torch files may hold the state dict itself or under ``model`` (MAE, this project's encoders) or ``state_dict``
    (OpenMMLab).

    Raises:
        CheckpointError: no such file, unreadable or truncated, wants to run code when loaded, or holds no tensors.
    """
    source = str(source)
    if source.startswith(TIMM_PREFIX):
        return Checkpoint(_timm_state(source.removeprefix(TIMM_PREFIX)), source)
    path = Path(source)
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {source} does not exist", f"give a file, or {TIMM_PREFIX}NAME for a timm model"
        )
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)
    meta = content.get("meta") if isinstance(content.get("meta"), dict) else {}
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {str(name).removeprefix("module."): t for name, t in content.items() if isinstance(t, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"checkpoint {source} holds no tensors (its keys are {list(content)[:5]})",
            "expected a state dict, or one under 'model' or 'state_dict'",
        )
    return Checkpoint(tensors, source, meta)


def _read_safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} is unreadable: {error}", "the file may be truncated: copy it again"
        ) from error


def read_torch_file(path: str | Path, map_location: Any = "cpu") -> dict:
    """The dictionary in a torch file, read with ``weights_only``.

    Raises:
        CheckpointError: see :func:`read_checkpoint`.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path} does not exist", "give the path of a file on this machine")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # the unpickler raises whatever a damaged file leads it to
        found = REASON.search(str(error))
        reason = (found[1] if found else str(error).partition("\n")[0] or type(error).__name__)[:200]
        if isinstance(error, pickle.UnpicklingError) and (
            (found and not DAMAGED.match(reason)) or _is_bare_pickle(path)
        ):
            raise CheckpointError(
                f"checkpoint {path} holds more than tensors and plain values; it would run code when loaded ({reason})",
                "re-save only its state dict with torch.save({'model': state_dict}, FILE) where you trust it",
            ) from error
        raise CheckpointError(
            f"checkpoint {path} is unreadable: {reason}",
            "the file may be truncated or no torch checkpoint: copy or export it again",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}", "expected a dictionary of tensors")
    return content


def _is_bare_pickle(path: str | Path) -> bool:
    """Whether a file begins like a pickle of any modern protocol; torch's own files are zip archives."""
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _timm_state(name: str) -> dict[str, Tensor]:
    import timm

    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:  # timm and its hub client raise many unrelated types; the message is what helps
        raise CheckpointError(
            f"timm model {name!r} could not be loaded: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
            "check the name with timm.list_models(pretrained=True), and the connection to the model hub",
        ) from error
