"""What a training step's line says, in console and in every tracker."""

import datetime
from pathlib import Path

import torch
from mmengine.runner import LogProcessor

from emae_mm.engine.hooks.meters import IMAGES
from emae_mm.registry import LOG_PROCESSORS

MIB = 2**20
SHOWN_APART = ("base_lr", "lr", "time", "data_time", "data_time_share", "images_per_s", "memory", "epoch", "iter")


def memory_mb() -> int:
    """MiB in use: the GPU's peak since the run began, or the process's resident memory; 0 where the system is silent.

    Unlike mmengine's it resets no counter, so that the run's record still knows the peak.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated() / MIB)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS:")), 0)


@LOG_PROCESSORS.register_module()
class TrainingLogProcessor(LogProcessor):
    """mmengine's LogProcessor with speed and memory for training.

    Adds to what is logged of a training step, over the last ``window_size`` passes: ``data_time_share`` (per cent of
    the time spent waiting for data), ``images_per_s`` (of all processes) and ``memory`` (MiB, see :func:`memory_mb`).

    Args:
        **kwargs: see mmengine's LogProcessor.
    """

    def get_log_after_iter(self, runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """The scalars for the trackers, and the line for the console."""
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != "train":
            return tag, line
        prefix = "train/" if self.log_with_hierarchy else ""
        tag.pop(IMAGES if prefix else IMAGES.removeprefix("train/"), None)
        tag |= {f"{prefix}{name}": value for name, value in self._speed(runner).items()}
        tag["memory"] = memory_mb()
        position = line[: line.index("]  ") + 1]  # Epoch(train) [1][ 50/100], whatever follows
        return tag, position + "  " + self._line(runner, {key.removeprefix("train/"): tag[key] for key in tag})

    def _speed(self, runner) -> dict[str, float]:
        scalars = runner.message_hub.log_scalars
        if not {"train/time", "train/data_time"} <= scalars.keys():
            return {}
        step = max(float(scalars["train/time"].mean(self.window_size)), 1e-9)
        found = {"data_time_share": 100 * float(scalars["train/data_time"].mean(self.window_size)) / step}
        if IMAGES in scalars:
            found["images_per_s"] = float(scalars[IMAGES].mean(self.window_size)) / step
        return found

    def _line(self, runner, values: dict) -> str:
        parts = []
        if "lr" in values:
            parts.append(f"lr: {values['lr']:.{self.num_digits}e}")
        if values.get("base_lr", values.get("lr")) != values.get("lr"):
            parts.append(f"base_lr: {values['base_lr']:.{self.num_digits}e}")
        if "time" in values and "eta" in runner.message_hub.runtime_info:
            eta = datetime.timedelta(seconds=int(runner.message_hub.get_info("eta")))
            parts += [f"eta: {eta}", f"time: {values['time']:.3f}"]
        if "data_time_share" in values:
            parts.append(f"data: {values['data_time_share']:.0f}%")
        if "images_per_s" in values:
            parts.append(f"images/s: {values['images_per_s']:.1f}")
        parts.append(f"memory: {values['memory']}")
        rest = {name: value for name, value in values.items() if name not in SHOWN_APART}
        losses = [name for name in rest if "loss" in name]
        for name in (*losses, *(name for name in rest if name not in losses)):
            value = rest[name]
            parts.append(f"{name}: {value:.{self.num_digits}f}" if isinstance(value, float) else f"{name}: {value}")
        return "  ".join(parts)

    def _get_max_memory(self, runner) -> int:
        return memory_mb()
