"""A benchmark as a list of stages: what each needs, how it is launched, what it leaves behind."""

from emae_mm.suite.plan import Stage, Suite, load_suite, plan
from emae_mm.suite.run import run_suite

__all__ = ["Stage", "Suite", "load_suite", "plan", "run_suite"]
