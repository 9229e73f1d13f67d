"""``emae-mm evaluate``: a finished run once more on its test data, training nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console

from emae_mm.checkpoints.reading import read_torch_file
from emae_mm.engine.command import parse_options
from emae_mm.engine.work_dir import latest_checkpoint
from emae_mm.errors import ConfigError
from emae_mm.leaderboard.records import RECORD_NAME, read_record, write_record
from emae_mm.paths import find_config
from emae_mm.suite.progress import standard_output
from emae_mm.transfer.command import finish
from emae_mm.transfer.console import say
from emae_mm.transfer.job import Job, configure
from emae_mm.transfer.machine import choose_machine
from emae_mm.transfer.place import show_place


@dataclass(frozen=True)
class Finished:
    """What is evaluated: a config, the checkpoint (None for k-NN, which trains nothing) and the folder of both."""

    config: Path
    checkpoint: Path | None
    folder: Path


def evaluate_command(
    run: Path,
    machine: dict[str, Any],
    *,
    data_root: Path | None = None,
    multi_scale: bool = False,
    config: str | None = None,
    work_dir: Path | None = None,
    cfg_options: tuple[str, ...] = (),
    console: Console | None = None,
) -> int:
    """Evaluate a run's last checkpoint, or any checkpoint of a config, and show the record's place.

    Args:
        run: a work directory, or a complete checkpoint.
        machine: arguments of :func:`~emae_mm.transfer.machine.choose_machine`.
        data_root: other data of the same layout; None: the run's own.
        multi_scale: with the config's test-time augmentation (segmentation).
        config: of the checkpoint; None: the copy that the run left beside it.
        work_dir: where the record goes; ``evaluation`` below the run's by default.
        cfg_options: ``key=value`` overrides.
        console: where to print; standard output if None.

    Returns:
        the exit status.

    Raises:
        UserError: there is no such run or data, or the checkpoint does not fit.
    """
    console = console or standard_output()
    found = find_run(run, config)
    out = work_dir or found.folder / ("evaluation-multi-scale" if multi_scale else "evaluation")
    options = dict(
        data_root=data_root and str(data_root),
        load_from=found.checkpoint and str(found.checkpoint.resolve()),
        cfg_options=parse_options(cfg_options),
    )
    job = Job(
        title=f"evaluation of {found.checkpoint or found.folder}",
        config=str(found.config),
        work_dir=str(out),
        machine=choose_machine(**machine),
        test=True,
        multi_scale=multi_scale,
        options={name: value for name, value in options.items() if value},
    )
    job = replace(job, remark=_unfinished(configure(job), found.checkpoint))
    cfg = configure(job)
    if status := finish(job, cfg, console):
        return status
    _complete(out / RECORD_NAME, found, console)
    show_place(out / RECORD_NAME, console)
    return 0


def find_run(run: Path, config: str | None = None) -> Finished:
    """The config and checkpoint of a work directory, or of a checkpoint file.

    Raises:
        ConfigError: there is no such run, or no config with it and none given.
    """
    if not run.exists():
        raise ConfigError(f"{run} does not exist", "give a run's work directory, or a complete checkpoint of a config")
    folder = run if run.is_dir() else run.parent
    path = find_config(config) if config else _config_copy(folder)
    if path is None:
        raise ConfigError(
            f"no config beside {run}: {folder} is not the work directory of a run",
            "give the config of the checkpoint with --config FILE",
        )
    checkpoint = latest_checkpoint(run) if run.is_dir() else run
    if checkpoint is None and Config.fromfile(path).get("train_cfg"):
        raise ConfigError(f"{run} holds no checkpoint yet", "finish that run first: call the same command again")
    return Finished(path, checkpoint, folder)


def _config_copy(folder: Path) -> Path | None:
    """The config that mmengine's Runner writes into a work directory."""
    return next(iter(sorted(folder.glob("*.py"), key=lambda path: -path.stat().st_mtime)), None)


def _unfinished(cfg: Config, checkpoint: Path | None) -> str:
    """What to add to the protocol of a checkpoint that has been trained for less long than its config says."""
    loop = cfg.get("train_cfg") or {}
    done = read_torch_file(checkpoint).get("meta") if checkpoint else None
    for unit, length in (("epoch", loop.get("max_epochs")), ("iter", loop.get("max_iters"))):
        reached = done.get(unit) if isinstance(done, dict) else None
        if length is not None and reached is not None and reached < length:
            return f", stopped at {unit} {reached} of {length}"
    return ""


def _complete(path: Path, found: Finished, console: Console) -> None:
    """Add to the record what only the run's own record knows, and say how the two compare."""
    record, beside = read_record(path), found.folder / RECORD_NAME
    what = found.checkpoint.name if found.checkpoint else found.folder.name
    old = read_record(beside) if beside.is_file() else None
    notes = "; ".join(filter(None, (record.notes, f"evaluated again from {what}")))
    write_record(replace(record, notes=notes, encoder=record.encoder or (old.encoder if old else None)), path)
    if old and old.primary in record.metrics:
        then, now = (each.metrics[old.primary].value for each in (old, record))
        same = "the same as" if then == now else f"{now - then:+.4g} from"
        say(console, f"{old.primary} {now:.6g}, {same} in the run's own record")
