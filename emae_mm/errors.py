"""Errors a user can mend. The command line and the tools print them without a traceback."""


class UserError(ValueError):
    """Something the user gave is wrong; the message names the file, key or value and the fix.

    Args:
        problem: one sentence, naming the offending file, key or value.
        fix: what to do about it.
    """

    def __init__(self, problem: str, fix: str = ""):
        self.problem = problem
        self.fix = fix
        super().__init__(f"{problem}\n  fix: {fix}" if fix else problem)

    def __reduce__(self):  # two arguments would otherwise be lost on the way back from a data loader's worker
        return type(self), (self.problem, self.fix)


class ConfigError(UserError):
    """A configuration value is unknown, contradictory or missing."""


class DataError(UserError):
    """A data set, annotation file or image cannot be used."""


class CheckpointError(UserError):
    """A checkpoint is unreadable, unsafe or does not fit the model."""
