"""Weights that must fit the model they are loaded into."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from emae_mm.data.offenders import listed
from emae_mm.errors import CheckpointError

LISTED = 5
WITHOUT_WRAPPER = ((r"^module\.", ""),)


def load_fitting(
    model: nn.Module,
    checkpoint: dict,
    filename: str,
    strict: bool = True,
    revise_keys: Sequence[tuple[str, str]] = WITHOUT_WRAPPER,
) -> None:
    """Load a checkpoint's ``state_dict`` (or the checkpoint, if it has none) into a model.

    Args:
        model: any module.
        checkpoint: what the file holds.
        filename: the file, for the message.
        strict: whether every name must be in both.
        revise_keys: (pattern, replacement) pairs applied to the names.

    Raises:
        CheckpointError: it does not fit; the first mismatches are listed.
    """
    state = checkpoint.get("state_dict", checkpoint)
    for pattern, replacement in revise_keys:
        state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
    try:
        model.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        if other := _other_classes(model.state_dict(), state):
            raise CheckpointError(
                f"checkpoint {filename} was trained for another number of classes: {listed(other)}",
                "give it the data it was trained on, or data with the same classes; an encoder to start from goes "
                "into 'pretrained'",
            ) from error
        problems = [line.strip()[:300] for line in str(error).splitlines()[1:]]
        more = f"\n    ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckpointError(
            f"checkpoint {filename} does not fit the model:\n    " + "\n    ".join(problems[:LISTED]) + more,
            "use the config it was trained with; an encoder to start from goes into 'pretrained'",
        ) from error


def _other_classes(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """The tensors that differ, where all that differs is the number of outputs of heads; else an empty list."""
    if set(own) - set(state):
        return []
    other = [name for name, tensor in own.items() if tensor.shape != state[name].shape]
    heads = all("head" in name and own[name].shape[1:] == state[name].shape[1:] for name in other)
    return [f"{name} has {len(state[name])} rows, not {len(own[name])}" for name in other] if heads else []
