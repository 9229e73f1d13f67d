"""One stage's training or test, in this process or as the whole of another one."""

import multiprocessing
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from multiprocessing.connection import Connection

import torch

from emae_mm.engine import launch
from emae_mm.errors import UserError
from emae_mm.leaderboard.records import RECORD_NAME, read_record
from emae_mm.quiet import silence_known_noise
from emae_mm.suite.plan import Stage


def launch_stage(stage: Stage, progress: Callable[..., None]) -> str:
    """Train or test the stage's config unless its record is there already.

    Returns:
        what to tell the user: the primary metric.

    Raises:
        UserError: whatever the configuration or the data lacks.
    """
    cfg = launch.prepare_config(
        stage.config,
        work_dir=stage.work_dir,
        cfg_options=stage.options,
        data_root=stage.data_root,
        pretrained=stage.pretrained or None,
        resume="auto",
        seed=stage.seed,
    )
    before = "finished before, " if launch.is_finished(cfg) else ""
    if not before:
        with redirect_stdout(StringIO()):  # pycocotools and others print tables that the logs hold, too
            launch.run(cfg, progress=progress, quiet=True)
    record = read_record(stage.work_dir / RECORD_NAME)
    metric = record.metrics[record.primary]
    return f"{before}{record.primary} {metric.value:.4g} {metric.unit}".strip()


def work(stage: Stage, threads: int, pipe: Connection) -> None:
    """A child's whole life: the stage, with messages to the parent.

    Args:
        stage: to launch.
        threads: of torch.
        pipe: gets ``("progress", args, kwargs)`` at every step and, last, one of ``("done", outcome)``, ``("failed",
            UserError)`` and ``("crashed", traceback)``.
    """
    multiprocessing.set_start_method(None, force=True)  # the stage's config chooses; this process is no fork server
    torch.set_num_threads(threads)
    silence_known_noise()
    try:
        outcome = launch_stage(stage, lambda *args, **kwargs: pipe.send(("progress", args, kwargs)))
    except UserError as error:
        pipe.send(("failed", error))
    except Exception:
        pipe.send(("crashed", traceback.format_exc()))
    else:
        pipe.send(("done", outcome))
