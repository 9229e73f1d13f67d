"""What a user sees while a suite runs: stage k of n, step, loss, time left."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

FILE_WIDTH = 150
"""Characters a line of what is printed into a file or a pipe."""
PLAIN_INTERVAL_S = 5.0
"""Seconds between lines where the output is no terminal."""


def standard_output() -> Console:
    """A console on standard output as it is now; a file holds wider tables than rich supposes."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else FILE_WIDTH)


def clock(seconds: float | None) -> str:
    """Minutes and seconds, or hours, minutes and seconds; ``-`` when unknown."""
    if seconds is None:
        return "-"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@contextmanager
def bars(console: Console) -> Iterator[Progress | None]:
    """The bars of all stages that run at a time, or None where the output is no terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[what]} {task.completed:.0f}/{task.total:.0f}  {task.fields[loss]}"),
        TextColumn("{task.fields[left]} left"),
    ]
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        yield progress


class StageProgress:
    """The line of one stage; a bar on a terminal, one line every few seconds elsewhere.

    Call it with (step, total steps, loss or None); the time left is extrapolated from the steps seen in this call
    of the suite, so that a resumed stage is not credited with steps it did not run. Its last line says how it ended.

    Args:
        console: where lines go.
        index: the stage's number, from 1.
        count: of all stages.
        title: of the stage.
        shared: the terminal's bars, from :func:`bars`.
    """

    def __init__(self, console: Console, index: int, count: int, title: str, shared: Progress | None = None):
        self.console = console
        self.label = f"[{index}/{count}] {title}"
        self.started = time.monotonic()
        self.first: tuple[int, float] | None = None
        self.last_line = 0.0
        self.shared = shared
        if shared is None:
            self._print(f"{self.label} ...")
        else:
            self.task = shared.add_task(self.label, total=1, what="starting", loss="", left="-")

    def __call__(self, step: int, total: int, loss: float | None = None, what: str = "step") -> None:
        now = time.monotonic()
        if self.first is None or step < self.first[0] or (what, total) != self.phase:
            self.first, self.phase = (step, now), (what, total)
        done, since = step - self.first[0], now - self.first[1]
        left = since / done * (total - step) if done > 0 else None
        loss_text = "" if loss is None else f"loss {loss:.4f}"
        if self.shared is not None:
            self.shared.update(
                self.task, completed=step, total=total, what=what, loss=loss_text, left=clock(left), refresh=True
            )
        elif now - self.last_line >= PLAIN_INTERVAL_S:
            self.last_line = now
            parts = [self.label, f"{what} {step}/{total}", loss_text, f"{clock(left)} left"]
            self._print("  ".join(filter(None, parts)))

    def end(self, outcome: str) -> None:
        """Say how the stage ended, and how long it took."""
        if self.shared is not None:
            self.shared.remove_task(self.task)
        self._print(f"{self.label}: {outcome} ({clock(time.monotonic() - self.started)})")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)
