"""Writing tensors in the forms that other libraries read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emae_mm.errors import CheckpointError
from emae_mm.fileio import replaced_atomically, write_atomically

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


def write_tensors(tensors: dict[str, Tensor], out: Path, wrap: Callable[[dict], Any] | None = None) -> None:
    """Write a torch file, or a ``.safetensors`` file where ``wrap`` adds nothing to the tensors.

    Args:
        tensors: contiguous, on the CPU, sharing no memory.
        out: target file; its suffix chooses.
        wrap: makes the torch file's content of the tensors.

    Raises:
        CheckpointError: another suffix, or ``.safetensors`` with a wrapping.
    """
    known = TORCH_SUFFIXES[:-1] if wrap else TORCH_SUFFIXES
    if out.suffix not in known:
        raise CheckpointError(f"{out} cannot be written in this format", f"end its name in {', '.join(known)}")
    if out.suffix == ".safetensors":
        write_safetensors(tensors, out)
    else:
        write_atomically(out, lambda file: torch.save(wrap(tensors) if wrap else tensors, file))


def write_safetensors(tensors: dict[str, Tensor], out: Path) -> None:
    """Write a ``.safetensors`` file atomically, marked as torch's."""
    from safetensors.torch import save_file

    with replaced_atomically(out) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
