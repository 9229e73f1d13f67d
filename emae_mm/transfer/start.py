"""Starting a job: in this process, through torchrun, or through Slurm."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from mmengine.config import Config
from rich.console import Console

from emae_mm.cores import threads_each
from emae_mm.transfer.job import Job
from emae_mm.transfer.machine import CPU

WORKER = "emae_mm.transfer.worker"
PATIENCE_S = 60.0
"""Seconds that interrupted processes have to end by themselves."""


def start(job: Job, cfg: Config, console: Console) -> int:
    """Run a job to its end, where its machine says.

    Args:
        job: what to run.
        cfg: the same as a config, for this process.
        console: where progress goes.

    Returns:
        the exit status: 0, or that of the process that failed first, which has said why.

    Raises:
        UserError: where the job runs in this process.
        KeyboardInterrupt: when interrupted; what was saved until then is whole.
    """
    command = launch_command(job, os.environ)
    if command is None:
        from emae_mm.transfer.run import run_job

        run_job(job, cfg, console)
        return 0
    process = subprocess.Popen(command, env=environment(job, os.environ))
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:  # the terminal has told the processes, too
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise


def launch_command(job: Job, environ: Mapping[str, str]) -> list[str] | None:
    """The command that starts the job's processes, or None where this process is the one.

    Slurm's takes ``CPUS_PER_TASK`` and ``SRUN_ARGS`` from the environment, as ``tools/slurm_train.sh`` does.
    """
    machine, python = job.machine, [sys.executable, "-u"]
    work = ["-m", WORKER, job.to_json()]
    if machine.launcher == "slurm":
        return [*_srun(job, environ), *python, *work]
    if machine.launcher == "pytorch":
        torchrun = ["-m", "emae_mm.engine.torchrun", "--standalone", f"--nproc_per_node={machine.processes}"]
        return [*python, *torchrun, *work]
    return [*python, *work] if machine.device == CPU and _sees_gpus() else None


def environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """What the processes find in their environment: no GPU where the CPU is meant, and their share of its cores."""
    own = dict(environ)
    on_cpu = job.machine.device == CPU
    if on_cpu:
        own["CUDA_VISIBLE_DEVICES"] = ""
    if job.machine.launcher == "pytorch":
        # with GPUs torchrun's and mmengine's own choice, which they would announce
        threads = str(threads_each(job.machine.processes)) if on_cpu else "1"
        own["MKL_NUM_THREADS"] = own.setdefault("OMP_NUM_THREADS", threads)
    return own


def _srun(job: Job, environ: Mapping[str, str]) -> Sequence[str]:
    machine = job.machine
    gpus = [] if machine.device == CPU else [f"--gres=gpu:{machine.per_node}"]
    return [
        "srun",
        f"--partition={machine.partition}",
        f"--job-name={job.title.split()[0]}",
        f"--ntasks={machine.processes}",
        f"--ntasks-per-node={machine.per_node}",
        f"--cpus-per-task={environ.get('CPUS_PER_TASK', '8')}",
        "--kill-on-bad-exit=1",
        *gpus,
        *shlex.split(environ.get("SRUN_ARGS", "")),
    ]


def _sees_gpus() -> bool:
    import torch

    return torch.cuda.is_available()
