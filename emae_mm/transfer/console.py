"""Printing lines as they are, on a terminal or into a file."""

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a line without colours, markup or breaks."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
