"""``emae-mm transfer``: from a checkpoint and a task to a record and its place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console

from emae_mm.data.checks import check_config_data
from emae_mm.engine.command import parse_options
from emae_mm.engine.follow_data import read_classes
from emae_mm.engine.launch import is_finished
from emae_mm.engine.precision import check_precision
from emae_mm.engine.schedule import check_schedule
from emae_mm.leaderboard.records import RECORD_NAME
from emae_mm.suite.progress import standard_output
from emae_mm.transfer.checks import Start, check_config, check_encoder, find_data, look_at
from emae_mm.transfer.console import say
from emae_mm.transfer.job import Job, configure, configure_in_full
from emae_mm.transfer.machine import Machine, choose_machine
from emae_mm.transfer.place import show_place
from emae_mm.transfer.quick import write_parts
from emae_mm.transfer.run import INTERRUPTED
from emae_mm.transfer.start import start
from emae_mm.transfer.tasks import Choice, choose, find_task

WORK_DIRS = Path("work_dirs/transfer")


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see ``emae-mm transfer --help``."""

    checkpoint: str
    task: str
    data_root: Path | None = None
    quick: bool = False
    config: str | None = None
    arch: str | None = None
    work_dir: Path | None = None
    seed: int | None = None
    cfg_options: tuple[str, ...] = ()
    amp: bool = False
    compile: bool = False
    fsdp: bool = False
    activation_checkpointing: bool = False
    resample_patch_embed: bool = False
    allow_missing: tuple[str, ...] = ()


def transfer_command(request: Request, machine: dict[str, Any], console: Console | None = None) -> int:
    """Check everything, run what has not been run yet, and show the record's place.

    Args:
        request: what to transfer where.
        machine: arguments of :func:`~emae_mm.transfer.machine.choose_machine`.
        console: where to print; standard output if None.

    Returns:
        the exit status.

    Raises:
        UserError: before anything is started, as far as that can be known.
    """
    console = console or standard_output()
    task = find_task(request.task)
    job = plan(request, choose_machine(**machine))
    cfg = configure(job)
    check_config(cfg, task, job.machine.processes)
    say(console, f"{job.title}: {cfg.record.protocol}\n{job.machine.title}, writing to {job.work_dir}")
    if cfg.record.get("notes"):
        say(console, cfg.record.notes)
    if is_finished(cfg):
        say(console, "finished before; nothing is run")
    else:
        _check_before(job, cfg)
        if status := finish(job, cfg, console):
            return status
    show_place(Path(job.work_dir) / RECORD_NAME, console)
    return 0


def _check_before(job: Job, cfg: Config) -> None:
    """What one look can tell, once, before any process is started."""
    check_schedule(cfg)
    if job.machine.launcher != "slurm":  # its nodes have other hardware than this machine
        check_precision(cfg)
    check_encoder(cfg)
    if job.quick_batch is not None:
        write_parts(configure_in_full(job), cfg)
    if job.machine.processes > 1:  # one process checks its data itself
        data = cfg.copy()
        read_classes(data)
        check_config_data(data)


def plan(request: Request, machine: Machine) -> Job:
    """The job that a request asks for on a machine.

    Raises:
        UserError: task, checkpoint, data root or options do not go together.
    """
    task = find_task(request.task)
    begin = look_at(request.checkpoint, request.arch)
    choice = choose(
        task, begin.arch, quick=request.quick, config=request.config, resampled=request.resample_patch_embed
    )
    data_root = find_data(request.data_root, task, declared=request.config is None)
    return Job(
        title=f"{task.name} of {begin.title}",
        config=str(choice.config),
        work_dir=str(request.work_dir or _work_dir(request, begin, choice)),
        machine=machine,
        quick_batch=task.quick_batch if choice.shorten else None,
        small=choice.small,
        options=_options(request, begin, data_root),
    )


def _work_dir(request: Request, begin: Start, choice: Choice) -> Path:
    parts = [request.task, *(["quick"] if request.quick else [])]
    parts += [f"seed-{request.seed}"] if request.seed is not None else []
    parts += [choice.config.stem] if request.config else []
    return WORK_DIRS / begin.slug / "-".join(parts)


def _options(request: Request, begin: Start, data_root: Path | None) -> dict[str, Any]:
    # whether there is LayerScale is the checkpoint's to say; its values replace this one
    scale = {"model.backbone.init_values": 0.1} if begin.has_layer_scale else {}
    options = dict(
        pretrained=request.checkpoint, data_root=data_root and str(data_root), seed=request.seed, amp=request.amp,
        compile=request.compile, fsdp=request.fsdp, activation_checkpointing=request.activation_checkpointing,
        resample_patch_embed=request.resample_patch_embed, allow_missing=list(request.allow_missing),
        cfg_options=scale | parse_options(request.cfg_options),
    )  # fmt: skip
    return {name: value for name, value in options.items() if value not in (None, False, [], {})}


def finish(job: Job, cfg: Config, console: Console) -> int:
    """Run a job to its end; what interrupted or stopped it can be gone on from, and is said."""
    again = f"the same command goes on from the last checkpoint in {job.work_dir}"
    try:
        status = start(job, cfg, console)
    except KeyboardInterrupt:
        say(console, f"interrupted; {again}")
        return INTERRUPTED
    if status not in (0, 2):  # 2: an error the user can mend, which has been printed
        say(console, f"stopped with exit status {status}; the log is below {job.work_dir}, and {again}")
    return status
