"""How a suite's stages ended, and what follows for the others."""

from emae_mm.errors import UserError
from emae_mm.suite.plan import Stage


class Ledger:
    """Keeps which stages finished and why others did not; every entry returns the line that tells the user."""

    def __init__(self):
        self.finished: list[Stage] = []
        self.failures: dict[str, UserError] = {}
        self._ended = {}

    def is_ready(self, stage: Stage) -> bool:
        """Whether what the stage needs has been made."""
        return stage.after is None or self._ended.get(stage.after) is True

    def is_lost(self, stage: Stage) -> bool:
        """Whether what the stage needs will not be made."""
        return self._ended.get(stage.after) is False

    def finish(self, stage: Stage, outcome: str) -> str:
        """The stage has left its results."""
        self._ended[stage.work_dir] = True
        self.finished.append(stage)
        return outcome

    def fail(self, stage: Stage, error: UserError, details: str = "") -> str:
        """The stage stopped; ``details`` is for the one who mends it, such as a traceback."""
        self._ended[stage.work_dir] = False
        self.failures[stage.title] = error
        return f"failed: {details or error}"

    def skip(self, stage: Stage) -> str:
        """What the stage needs is missing."""
        self._ended[stage.work_dir] = False
        return "skipped, as what it needs failed"

    def of_kind(self, *kinds: str) -> list[Stage]:
        """The finished stages of these kinds."""
        return [stage for stage in self.finished if stage.kind in kinds]

    def raise_failures(self) -> None:
        """Raise UserError if a stage failed: its own error, or one that names them all."""
        errors = list(self.failures.values())
        if len(errors) == 1:
            raise errors[0]
        if errors:
            problems = "".join(f"\n  {title}: {error.problem}" for title, error in self.failures.items())
            raise UserError(f"{len(errors)} stages failed:{problems}", errors[0].fix)
