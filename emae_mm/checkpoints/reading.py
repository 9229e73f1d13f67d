"""Reading checkpoint files without running code from them."""

import argparse
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emae_mm.checkpoints.safe_pickle import RefusedError, read_pickle, training_globals
from emae_mm.errors import CheckpointError

TIMM_PREFIX = "timm:"
REASON = re.compile(r"(?:WeightsUnpickler error:\s*|^(?=Trying to load unsupported GLOBAL))(\S.*)", re.MULTILINE)
"""Where torch's safe unpickler says what it refuses, in a message of many lines."""
DAMAGED = re.compile(r"Unsupported operand")
"""What it says of bytes that are no pickle, or a pickle of a protocol torch does not write."""
TORCH_STARTS = (b"PK", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
"""How torch's files begin: as a zip archive, or, before it wrote those, with a pickled magic number."""
WRAPPINGS = ("model", "state_dict")
FOLDER_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""What a Hugging Face folder may hold the weights in, the preferred first."""


@dataclass
class Checkpoint:
    """A flat state dict and what is known about it.

    Attributes:
        tensors: parameter name to tensor; wrapper prefixes (``module.``) removed.
        meta: the ``meta`` a pre-training run of this project wrote (method, arch, data, epochs...), or empty.
        source: where it came from, for messages.
        facts: what stands beside the tensors about the architecture: a folder's ``config.json``, or ``num_heads`` of
            timm's model; else empty.
    """

    tensors: dict[str, Tensor]
    source: str
    meta: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)


def read_checkpoint(source: str | Path) -> Checkpoint:
    """Read a checkpoint of any supported form.

    A ``.safetensors`` file; a torch file (``weights_only``) or a pickle of arrays (detectron2), which may hold the
    state dict itself, under ``model`` or under ``state_dict``; a Hugging Face folder; or ``timm:NAME``, which is
    downloaded.

    Raises:
        CheckpointError: no such file, unreadable or truncated, wants to run code when loaded, or holds no tensors.
    """
    source = str(source)
    if source.startswith(TIMM_PREFIX):
        return _timm_checkpoint(source.removeprefix(TIMM_PREFIX), source)
    path = Path(source)
    if path.is_dir():
        content, facts = _read_folder(path)
    else:
        content, facts = _read_file(path), {}
    meta = content.get("meta") if isinstance(content.get("meta"), dict) else {}
    for key in WRAPPINGS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {str(name).removeprefix("module."): t for name, t in content.items() if isinstance(t, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"checkpoint {source} holds no tensors (its keys are {list(content)[:5]})",
            "expected a state dict, or one under 'model' or 'state_dict'",
        )
    return Checkpoint(tensors, source, meta, facts)


def weights_file(source: str | Path) -> Path | None:
    """The file that identifies a checkpoint: itself, or a Hugging Face folder's weights; None if it is no local file.

    A sharded folder's is the index.
    """
    path = Path(source)
    if path.is_dir():
        return next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
    return path if path.is_file() else None


def _read_folder(folder: Path) -> tuple[dict, dict]:
    """The tensors of a Hugging Face folder, and its configuration."""
    weights = weights_file(folder)
    if weights is None:
        raise CheckpointError(
            f"folder {folder} holds no weights", f"it needs one of {', '.join(FOLDER_FILES)}, as transformers writes"
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"folder {folder} has no config.json", "copy it, too: it has what the weights do not say (attention heads)"
        )
    facts = _read_json(folder / "config.json")
    if weights.suffix != ".json":
        return _read_file(weights), facts
    parts = sorted(set(_read_json(weights).get("weight_map", {}).values()))
    content: dict = {}
    for part in parts:
        if Path(part).name != part:
            raise CheckpointError(f"{weights} names {part!r}, which is outside its folder", "use an unchanged download")
        content |= _read_file(folder / part)
    return content, facts


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}", "copy it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object", "copy it again")
    return content


def _read_file(path: Path) -> dict:
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} does not exist",
            f"give a file, a Hugging Face folder, or {TIMM_PREFIX}NAME for a timm model",
        )
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_torch_file(path)


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
    """The dictionary in a torch file or in a pickle of arrays, read without running code from it.

    Beside tensors and plain values it may hold numpy arrays (they become tensors where they stand in a state dict),
    parsed command lines (``argparse.Namespace``) and mmengine's histories.

    Raises:
        CheckpointError: see :func:`read_checkpoint`.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path} does not exist", "give the path of a file on this machine")
    try:
        if _is_torch_file(path):
            with torch.serialization.safe_globals([argparse.Namespace, *training_globals()]):
                content = torch.load(path, map_location=map_location, weights_only=True)
        else:
            content = _arrays_to_tensors(read_pickle(path))
    except Exception as error:  # the unpicklers raise whatever a damaged file leads them to
        raise _reading_error(path, error) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}", "expected a dictionary of tensors")
    return dict(content)


def _is_torch_file(path: str | Path) -> bool:
    with open(path, "rb") as file:
        return file.read(32).startswith(TORCH_STARTS)


def _reading_error(path: str | Path, error: Exception) -> CheckpointError:
    """What is wrong with a file that an unpickler refused or stumbled over."""
    found = REASON.search(str(error))
    reason = (found[1] if found else str(error).partition("\n")[0] or type(error).__name__)[:200]
    if isinstance(error, RefusedError) or (
        isinstance(error, pickle.UnpicklingError) and found and not DAMAGED.match(reason)
    ):
        return CheckpointError(
            f"checkpoint {path} holds more than tensors and plain values; it would run code when loaded ({reason})",
            "re-save only its state dict with torch.save({'model': state_dict}, FILE) where you trust it",
        )
    return CheckpointError(
        f"checkpoint {path} is unreadable: {reason}",
        "the file may be truncated or no torch checkpoint: copy or export it again",
    )


def _arrays_to_tensors(content: Any) -> Any:
    """Numpy arrays of numbers as tensors, in a dictionary and in the state dict within it."""
    import numpy as np

    if isinstance(content, dict):
        return {key: _arrays_to_tensors(value) for key, value in content.items()}
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiub":
        return torch.from_numpy(np.array(content))
    return content


def _timm_checkpoint(name: str, source: str) -> Checkpoint:
    import timm

    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm and its hub client raise many unrelated types; the message is what helps
        raise CheckpointError(
            f"timm model {name!r} could not be loaded: {type(error).__name__}: {str(error).splitlines()[0][:200]}",
            "check the name with timm.list_models(pretrained=True), and the connection to the model hub",
        ) from error
    attention = getattr(model.blocks[0], "attn", None) if hasattr(model, "blocks") else None
    heads = getattr(attention, "num_heads", None)
    return Checkpoint(model.state_dict(), source, facts={"num_heads": heads} if heads else {})
