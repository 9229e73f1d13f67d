"""One process of a transfer: what torchrun and Slurm start, as ``python -m emae_mm.transfer.worker JOB``."""

import os
import signal
import sys
from contextlib import redirect_stdout
from io import StringIO

from mmengine.config import Config
from rich.console import Console

from emae_mm.engine import launch
from emae_mm.engine.command import guarded
from emae_mm.quiet import silence_known_noise
from emae_mm.suite.progress import StageProgress, bars
from emae_mm.transfer.job import Job, configure

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


def main() -> None:
    """Run the job of the command line."""
    silence_known_noise()
    job = Job.from_json(sys.argv[1])
    first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
    try:
        guarded(lambda: run_job(job, configure(job), Console(file=sys.stdout) if first else None))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the one who started it says what to do


if __name__ == "__main__":
    main()
