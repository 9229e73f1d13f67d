"""What a run will cost, counted without data, weights or a GPU: FLOPs, memory, steps, hours."""

from emae_mm.cost.estimate import Cost, estimate_cost
from emae_mm.cost.flops import Flops, count_flops
from emae_mm.cost.machine import Machine
from emae_mm.cost.memory import LiveMemory

__all__ = ["Cost", "Flops", "LiveMemory", "Machine", "count_flops", "estimate_cost"]
