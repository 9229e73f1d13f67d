"""The processor's cores, and their share for each of several processes."""

import os


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """Threads for each of several processes that share the cores; at least 1."""
    return max(1, available_cores() // processes)
