"""Which processes a transfer runs in: checked before anything is started."""

import shutil
from dataclasses import dataclass

from emae_mm.errors import ConfigError

GPU, CPU = "gpu", "cpu"


@dataclass(frozen=True)
class Machine:
    """Where a run runs.

    Attributes:
        device: ``"gpu"`` or ``"cpu"``.
        processes: one a GPU, or that many on the CPU.
        launcher: ``"none"`` (this process), ``"pytorch"`` (torchrun on this machine) or ``"slurm"`` (srun).
        partition: Slurm's.
        per_node: processes on each of Slurm's nodes.
    """

    device: str
    processes: int = 1
    launcher: str = "none"
    partition: str = ""
    per_node: int = 8

    @property
    def title(self) -> str:
        """For people: ``8 GPUs``, ``1 GPU``, ``the CPU``, ``2 processes on the CPU``; with Slurm its partition."""
        if self.device == GPU:
            text = f"{self.processes} GPU{'s' if self.processes > 1 else ''}"
        else:
            text = "the CPU" if self.processes == 1 else f"{self.processes} processes on the CPU"
        return f"{text} through Slurm, partition {self.partition}" if self.launcher == "slurm" else text


def choose_machine(
    gpus: int | None = None,
    cpu: bool = False,
    processes: int | None = None,
    launcher: str | None = None,
    partition: str = "",
    gpus_per_node: int = 8,
) -> Machine:
    """What the command line asks for, if it is there; with neither ``gpus`` nor ``cpu`` one GPU, or the CPU without.

    Args:
        gpus: of this machine, or of all of Slurm's nodes together.
        cpu: leave GPUs alone.
        processes: with ``cpu`` only.
        launcher: ``"slurm"``, or None: this process for one, torchrun for several.
        partition: Slurm's; needed with it.
        gpus_per_node: Slurm's.

    Raises:
        ConfigError: options contradict each other, or the machine has fewer GPUs, or no Slurm.
    """
    import torch

    if gpus is not None and cpu:
        raise ConfigError("--gpus and --cpu contradict each other", "give one of them")
    if processes is not None and not cpu:
        raise ConfigError(
            "--processes is for --cpu only", "give --cpu --processes N, or --gpus N: each GPU has one process"
        )
    for name, number in (("--gpus", gpus), ("--processes", processes), ("--gpus-per-node", gpus_per_node)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} {number} is too small", "use at least 1")
    if launcher == "slurm":
        return _slurm(GPU if not cpu else CPU, processes or gpus or gpus_per_node, partition, gpus_per_node)
    if launcher not in (None, "none", "pytorch"):
        raise ConfigError(f"--launcher {launcher} is unknown", "use slurm, or none: several processes use torchrun")
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus is not None and gpus > available:
        has = f"this machine has {available}" if available else "this machine has none"
        raise ConfigError(
            f"--gpus {gpus}: {has}",
            (f"use --gpus {available}" if available else "use --cpu (with --quick for a smoke run)")
            + ", or --launcher slurm for other machines",
        )
    device = CPU if cpu or (gpus is None and not available) else GPU
    count = (processes if device == CPU else gpus) or 1
    return Machine(device, count, "pytorch" if count > 1 else "none")


def _slurm(device: str, processes: int, partition: str, per_node: int) -> Machine:
    if not partition:
        raise ConfigError("--launcher slurm needs a partition", "add --partition NAME (sinfo lists them)")
    if shutil.which("srun") is None:
        raise ConfigError(
            "--launcher slurm: there is no srun on this machine", "call it on a login node of the cluster"
        )
    if processes > per_node and processes % per_node:
        raise ConfigError(
            f"{processes} processes do not fill nodes of {per_node}",
            "use a multiple, or --gpus-per-node",
        )
    return Machine(device, processes, "slurm", partition, min(per_node, processes))
