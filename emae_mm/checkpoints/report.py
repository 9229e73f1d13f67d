"""What happened to a checkpoint's tensors, and which of the differences are allowed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

LISTED = 5
"""How many names a message gives before it only counts the rest."""


@dataclass
class LoadReport:
    """What happened to the tensors of an encoder.

    Attributes:
        source: the checkpoint.
        format: its format's name.
        used: encoder tensors that were used, resampled ones included.
        resampled: those that were brought to another size.
        unused: encoder tensors left over, as the task or ``allow_missing`` permits.
        fresh: parameters missing from the checkpoint, which start fresh, as the task or ``allow_missing`` permits.
        beside: names that are no part of the encoder, and why they are not needed.
        meta: see :class:`~emae_mm.checkpoints.Checkpoint`.
    """

    source: str
    format: str = ""
    used: list[str] = field(default_factory=list)
    resampled: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)
    meta: dict = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"encoder from {self.source} ({self.format}): {len(self.used)} of {len(self.used) + len(self.unused)} "
            f"encoder tensors used, {count(self.resampled, 'resampled')}, {count(self.unused, 'left over')}, "
            f"{count(self.fresh, 'missing')}; {count(self.beside, 'beside the encoder, not needed')}"
        )


def shorten(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def count(names: Iterable[str], what: str) -> str:
    """How many names there are, what they are, and the first of them."""
    names = list(names)
    return f"{len(names)} {what}" + (f" [{shorten(names)}]" if names else "")


def permission(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name is among names or shell-like patterns (``norm.*``, ``blocks.*.attn.rel_pos_?``)."""
    patterns = tuple(patterns)
    return lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)


def listed(problems: list[str]) -> str:
    """The first problems, each on a line of its own."""
    more = f"\n    ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return "\n    " + "\n    ".join(problems[:LISTED]) + more
