"""Weights that must fit the model they are loaded into."""

import re
from collections.abc import Sequence

from torch import nn

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
        problems = [line.strip()[:300] for line in str(error).splitlines()[1:]]
        more = f"\n    ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
        raise CheckpointError(
            f"checkpoint {filename} does not fit the model:\n    " + "\n    ".join(problems[:LISTED]) + more,
            "use the config it was trained with; an encoder to start from goes into 'pretrained'",
        ) from error
