"""Errors a user can mend. The command line and the tools print them without a traceback."""

_FIX = "\n  fix: "


class UserError(ValueError):
    """Something the user gave is wrong; the message names the file, key or value and the fix.

    Args:
        problem: one sentence, naming the offending file, key or value.
        fix: what to do about it.
    """

    def __init__(self, problem: str, fix: str = ""):
        if problem.startswith("Caught ") and not fix:
            problem, fix = self._from_worker(problem)
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}{_FIX}{fix}" if fix else problem)

    @classmethod
    def _from_worker(cls, text: str) -> tuple[str, str]:
        """The problem and fix within what torch makes of an error in a data loader's worker.

        torch raises the same class anew with the worker's whole traceback as the message; its last lines are ours.
        """
        message = text.rpartition(f"\n{cls.__module__}.{cls.__qualname__}: ")[2].strip()
        problem, _, fix = message.partition(_FIX)
        return problem, fix

    def __reduce__(self):  # two arguments would otherwise be lost on the way back from a data loader's worker
        return type(self), (self.problem, self.fix)


class ConfigError(UserError):
    """A configuration value is unknown, contradictory or missing."""


class DataError(UserError):
    """A data set, annotation file or image cannot be used."""


class CheckpointError(UserError):
    """A checkpoint is unreadable, unsafe or does not fit the model."""
