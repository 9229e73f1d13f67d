"""One run as plain values, so that this process, torchrun's and Slurm's processes make the same config of it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from emae_mm.data.demo import is_demo_dataset
from emae_mm.engine import launch
from emae_mm.engine.follow_data import NUM_CLASSES, data_name
from emae_mm.errors import ConfigError
from emae_mm.leaderboard.schema import DEMO_DATA
from emae_mm.transfer.machine import CPU, Machine
from emae_mm.transfer.multi_scale import use_several_scales
from emae_mm.transfer.quick import shorten

AMP_WRAPPER = "AmpOptimWrapper"


@dataclass(frozen=True)
class Job:
    """What to run, and how.

    Attributes:
        title: shown while it runs.
        config: the config's file.
        work_dir: where it writes.
        machine: where it runs.
        test: evaluate only.
        multi_scale: with the config's test-time augmentation.
        remark: ends the record's protocol, where what is tested is not what the protocol yields.
        quick_batch: images each process takes at a step of a quick run; None: the config's own schedule.
        small: a small variant: its batch is what one process takes, and the data are named after their folder.
        options: further arguments of :func:`emae_mm.engine.launch.prepare_config`.
    """

    title: str
    config: str
    work_dir: str
    machine: Machine
    test: bool = False
    multi_scale: bool = False
    remark: str = ""
    quick_batch: int | None = None
    small: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The job as one word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job from :meth:`to_json`."""
        values = json.loads(text)
        return cls(**{**values, "machine": Machine(**values["machine"])})


def configure(job: Job) -> Config:
    """The config of a job; equal in all its processes.

    Raises:
        ConfigError: as :func:`emae_mm.engine.launch.prepare_config`; also if float16 was asked for on a CPU.
    """
    cfg = configure_in_full(job)
    if job.quick_batch is not None:
        shorten(cfg, job.quick_batch, job.machine.processes)
        cfg.merge_from_dict(job.options.get("cfg_options") or {})  # what the user says is not overridden
    return cfg


def configure_in_full(job: Job) -> Config:
    """As :func:`configure`, but a quick run's config before it is shortened."""
    cfg = launch.prepare_config(
        job.config,
        work_dir=job.work_dir,
        launcher=job.machine.launcher,
        resume=False if job.test else "auto",
        **job.options,
    )
    if "record" not in cfg or cfg.record.get("task") == "pretrain":
        raise ConfigError(f"{job.config} is no transfer config", "choose one below classification/, detection/, ...")
    _name_data(cfg, job)
    if job.machine.device == CPU:
        _compute_on_cpu(cfg, job)
    if job.test:
        _only_test(cfg)
    if job.multi_scale:
        use_several_scales(cfg)
    cfg.record.protocol += job.remark
    return cfg


def _only_test(cfg: Config) -> None:
    """What a finished run's own copy of its config holds, and evaluating it again elsewhere has no use for."""
    if cfg.load_from:
        cfg.pretrained = cfg.model.backbone.pretrained = ""
    cfg.pop("model_wrapper_cfg", None)


def _name_data(cfg: Config, job: Job) -> None:
    root = job.options.get("data_root")
    if root is None:
        return
    if is_demo_dataset(Path(root)):
        cfg.record.data = DEMO_DATA
    elif job.small or cfg.record.data == DEMO_DATA or (job.test and cfg.record.data not in NUM_CLASSES):
        cfg.record.data = data_name(cfg)


def _compute_on_cpu(cfg: Config, job: Job) -> None:
    """float16 with a loss scaler exists on GPUs only: float32 takes its place, and the record says so."""
    wrapper = cfg.get("optim_wrapper") or {}
    asked = (job.options.get("cfg_options") or {}).get("optim_wrapper.type")
    if str(asked).rpartition(".")[2] == AMP_WRAPPER:
        return  # refused by the checks before a run
    if str(wrapper.get("type")).rpartition(".")[2] == AMP_WRAPPER:
        wrapper.type, wrapper.dtype = "emae_mm.AutocastOptimWrapper", "float32"
        cfg.record.notes = "computed in float32 on a CPU; the protocol computes in float16"
        wrapper.pop("loss_scale", None)
