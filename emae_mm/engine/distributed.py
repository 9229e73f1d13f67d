"""One process or many, GPUs or CPUs, with the same config."""

import os
import subprocess

import torch
from mmengine.config import Config

from emae_mm.engine.passes import accumulate_iterations
from emae_mm.errors import ConfigError

FSDP = "emae_mm.FSDPStrategy"


def init_distributed(launcher: str) -> None:
    """Join the process group of a launcher where there are no GPUs; with GPUs mmengine's Runner does it (NCCL).

    mmengine would select a GPU even for gloo, so the group is made here before the Runner looks for one.
    """
    if launcher == "none" or torch.cuda.is_available() or torch.distributed.is_initialized():
        return
    if launcher == "slurm":
        os.environ["RANK"], os.environ["WORLD_SIZE"] = os.environ["SLURM_PROCID"], os.environ["SLURM_NTASKS"]
        os.environ.setdefault("MASTER_PORT", "29500")
        if "MASTER_ADDR" not in os.environ:
            hosts = subprocess.run(
                ["scontrol", "show", "hostnames", os.environ["SLURM_NODELIST"]], capture_output=True, text=True
            )
            os.environ["MASTER_ADDR"] = hosts.stdout.split()[0]
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"launcher {launcher!r} set no {', '.join(missing)}", "start through tools/dist_train.sh or slurm_train.sh"
        )
    torch.distributed.init_process_group("gloo")


def choose_strategy(cfg: Config) -> str:
    """The runner's name for the config's ``strategy``, which is completed in place or removed.

    No strategy is one process or DDP; mmengine's FSDPStrategy is ours. One process alone has nothing to share.

    Raises:
        ConfigError: another strategy.
    """
    strategy = cfg.get("strategy")
    if not strategy:
        return "BenchmarkRunner"
    if strategy.type not in ("FSDPStrategy", FSDP):
        raise ConfigError(
            f"strategy.type={strategy.type!r} is not supported",
            f"use strategy=dict(type={FSDP!r}), or none: processes then have a copy of the model each (DDP)",
        )
    strategy = cfg.pop("strategy")
    if cfg.launcher == "none" or world_size() == 1:
        return "BenchmarkRunner"
    recomputed, compiled = cfg.pop("activation_checkpointing", None), cfg.get("compile")
    cfg.strategy = {**strategy, "type": FSDP, "activation_checkpointing": recomputed, "compile": compiled}
    return "ShardedRunner"


def world_size() -> int:
    """Processes of this run, before or after the process group exists."""
    if torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    said = (os.environ.get(name) for name in ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    return int(next(filter(None, said), 1))


def share_batch(cfg: Config, processes: int | None = None) -> None:
    """Make the batch of one optimiser step ``global_batch_size`` images, however many processes share it.

    ``train_dataloader.batch_size`` is what one process is meant to hold at once: fewer images a process make it
    smaller, more are accumulated over several passes, for which an iteration-based schedule is stretched.

    Args:
        cfg: changed in place.
        processes: that share the batch; by default those of this run.

    Raises:
        ConfigError: the global batch does not divide among the processes or passes; names the numbers.
    """
    total, loader = cfg.get("global_batch_size"), cfg.get("train_dataloader")
    if processes is None:
        processes = world_size() if cfg.launcher != "none" else 1
    if cfg.launcher != "none" and not torch.cuda.is_available():
        # as mmengine wraps models on GPUs, but for the device
        wrapper = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
        cfg.setdefault("model_wrapper_cfg", wrapper)
        cfg.model_wrapper_cfg.setdefault("find_unused_parameters", cfg.get("find_unused_parameters", False))
    if not total or not loader:
        return
    loader.batch_size, passes = split_batch(total, loader.batch_size, processes)
    if passes == 1:
        return
    by_epoch = cfg.train_cfg.get("type", "EpochBasedTrainLoop") == "EpochBasedTrainLoop" or cfg.train_cfg.get(
        "by_epoch"
    )
    if by_epoch:
        cfg.optim_wrapper.accumulative_counts = passes
    else:
        accumulate_iterations(cfg, passes)


def split_batch(total: int, held: int, processes: int) -> tuple[int, int]:
    """Images a process takes at once, and passes of an optimiser step.

    Args:
        total: images of an optimiser step.
        held: images a process can hold at once.
        processes: that share the work.

    Raises:
        ConfigError: the images do not divide among the processes or passes; names the numbers.
    """
    if total % processes:
        raise ConfigError(
            f"global_batch_size={total} does not divide among {processes} processes",
            f"use a multiple of {processes}, or another number of processes",
        )
    share = total // processes
    if share <= held:
        return share, 1
    if share % held:
        raise ConfigError(
            f"each of {processes} processes has {share} images a step, which is no multiple of "
            f"train_dataloader.batch_size={held}",
            f"set train_dataloader.batch_size to a divisor of {share}",
        )
    return held, share // held


def adapt_to_cpu(cfg: Config) -> None:
    """Without a GPU replace what exists on GPUs only, in place: SyncBN by batch norm over each process's own samples,
    pinned by ordinary memory.
    """

    def visit(node) -> None:
        if isinstance(node, dict):
            if node.get("type") == "SyncBN":
                node["type"] = "BN"
            if "pin_memory" in node:
                node["pin_memory"] = False
            for value in node.values():
                visit(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                visit(value)

    if not torch.cuda.is_available():
        visit(cfg._cfg_dict)
