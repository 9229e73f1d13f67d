"""What the benchmarks of steps share: a clock, a step's memory, and what the hardware gives in practice."""

import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from emae_mm.engine.record_hook import peak_memory_mb, reset_peak_memory
from emae_mm.fileio import write_text
from emae_mm.leaderboard.provenance import code_version, cpu_name, library_versions


def now(device: torch.device | str) -> float:
    """Seconds, after everything that was asked of the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def step_memory_mb(step: Callable[[], None], device: torch.device | str) -> float:
    """The peak of ``step`` beyond what is there before it, in MiB."""
    gc.collect()
    cuda = torch.device(device).type == "cuda"
    if not cuda and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what earlier steps freed goes back to the system, and counts again when it is used
    reset_peak_memory()
    if cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        before = peak_memory_mb()
    step()
    return peak_memory_mb() - before


def matrix_peak(device: str, precision: str) -> float:
    """GFLOP/s of one large matrix product, the best of several: what the hardware gives in practice."""
    size = 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        started = now(device)
        a @ b
        best = min(best, now(device) - started)
    return 2 * size**3 / best / 1e9


def median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times faster ours is: the median over turns of their time over ours."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


class Report:
    """What was measured where, written after each part: a long run that is cut off keeps what it has.

    Args:
        threads: of the CPU.
        steps: timed turns.
        file: JSON file, or None for none.
    """

    def __init__(self, threads: int, steps: int, file: Path | None):
        torch.set_num_threads(threads)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.hardware = torch.cuda.get_device_name() if self.device == "cuda" else f"{cpu_name()}, {threads} threads"
        self.file = file
        self.content = dict(
            hardware=self.hardware, device=self.device, threads=threads, libraries=library_versions(),
            code=vars(code_version()), steps=steps, rows=[],
        )  # fmt: skip

    def add(self, rows: list[dict]) -> None:
        self.content["rows"] += rows
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.file, json.dumps(self.content, indent=2) + "\n")
