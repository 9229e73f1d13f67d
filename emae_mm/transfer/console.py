"""Printing: lines as they are, on a terminal or into a file."""

import sys

from rich.console import Console

from emae_mm.suite.run import FILE_WIDTH


def standard_output() -> Console:
    """A console on standard output; a file holds wider tables than rich supposes."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else FILE_WIDTH)


def say(console: Console, text: str) -> None:
    """Print a line without colours, markup or breaks."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
