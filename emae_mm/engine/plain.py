"""Between what mmengine keeps in checkpoints and what ``torch.load(weights_only=True)`` reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

HISTORY = "history"


def to_plain(value: Any) -> Any:
    """Plain values and tensors as they are, NumPy's as Python's, log histories as tensors, anything unknown as text."""
    if isinstance(value, np.generic):  # first: NumPy's float64 is a float, too
        return value.item()
    if isinstance(value, (torch.Tensor, str, bytes, bool, int, float, type(None))):
        return value
    if isinstance(value, HistoryBuffer):
        return {HISTORY: [torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in value.data]}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(to_plain(item) for item in value)
    if isinstance(value, (list, set, frozenset)):
        return [to_plain(item) for item in value]
    return repr(value)


def to_history(value: Any) -> Any:
    """A log history from what :func:`to_plain` made of it; anything else as it is."""
    if isinstance(value, dict) and set(value) == {HISTORY}:
        return HistoryBuffer(*(part.cpu().numpy() for part in value[HISTORY]))
    return value
