"""How offending files and entries are told: the first few and their number in one message, all of them on request."""

from collections.abc import Sequence

from emae_mm.errors import DataError

SHOWN = 5


class OffendersError(DataError):
    """Several files or entries have the same fault.

    Attributes:
        offenders: all of them, as text.
    """

    offenders: tuple[str, ...] = ()


def listed(offenders: Sequence) -> str:
    """The first offenders and how many there are: ``a, b, c (3)`` or ``a, b, c, d, e, ... (1200)``."""
    shown = ", ".join(str(item) for item in offenders[:SHOWN])
    return f"{shown}{', ...' if len(offenders) > SHOWN else ''} ({len(offenders)} in all)"


def refuse(problem: str, offenders: Sequence, fix: str) -> None:
    """Raise one :class:`OffendersError` for all offenders; nothing happens when there are none.

    Args:
        problem: a clause that the list of offenders completes.
        offenders: what is to be named.
        fix: what to do about it.
    """
    if len(offenders):
        error = OffendersError(f"{problem}: {listed(offenders)}", fix)
        error.offenders = tuple(str(item) for item in offenders)
        raise error
