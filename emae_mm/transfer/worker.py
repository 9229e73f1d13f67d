"""One process of a transfer: what torchrun and Slurm start, as ``python -m emae_mm.transfer.worker JOB``."""

import os
import sys

from emae_mm.quiet import silence_known_noise


def main() -> None:
    """Run the job of the command line."""
    silence_known_noise()  # before the imports, some of which make it
    from rich.console import Console

    from emae_mm.engine.command import guarded
    from emae_mm.transfer.job import Job, configure
    from emae_mm.transfer.run import INTERRUPTED, run_job

    job = Job.from_json(sys.argv[1])
    first = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"
    try:
        guarded(lambda: run_job(job, configure(job), Console(file=sys.stdout) if first else None))
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)  # the one who started it says what to do


if __name__ == "__main__":
    main()
