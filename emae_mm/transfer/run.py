"""A job's run within one process, with its progress."""

import signal
from contextlib import redirect_stdout
from io import StringIO

from mmengine.config import Config
from rich.console import Console

from emae_mm.engine import launch
from emae_mm.suite.progress import StageProgress, bars
from emae_mm.transfer.job import Job

INTERRUPTED = 128 + signal.SIGINT


def run_job(job: Job, cfg: Config, console: Console | None) -> None:
    """Train (or only test) with progress on ``console``; None for the processes that show nothing.

    Raises:
        UserError: before anything is computed, as far as that can be known.
    """
    act = launch.test if job.test else launch.run
    if console is None:
        with redirect_stdout(StringIO()):
            act(cfg, quiet=True)
        return
    with bars(console) as shared:
        progress = StageProgress(console, 1, 1, job.title, shared)
        outcome = "stopped"
        try:
            with redirect_stdout(StringIO()):  # pycocotools and others print tables that the logs hold, too
                act(cfg, progress=progress, quiet=True)
            outcome = "done"
        finally:
            progress.end(outcome)
