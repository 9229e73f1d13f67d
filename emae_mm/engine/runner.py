"""mmengine's Runner with atomic checkpoints that are read safely, must fit, and let a run go on bit for bit."""

import itertools
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from emae_mm.checkpoints.reading import read_torch_file
from emae_mm.engine.plain import to_history, to_plain
from emae_mm.engine.random_states import get_random_states, set_random_states
from emae_mm.errors import CheckpointError
from emae_mm.fileio import replaced_atomically
from emae_mm.registry import RUNNERS

LISTED = 5
RANDOM_STATES, SPENT = "random_states", "spent_s"
_RUNS = itertools.count(1)


class _StateHook(Hook):
    """What a checkpoint holds beyond mmengine's: every process's random states and the time spent."""

    priority = "LOWEST"

    def before_train(self, runner) -> None:
        """After everything that draws while a run is set up."""
        if runner.states_to_restore is not None:
            set_random_states(runner.states_to_restore)
            runner.states_to_restore = None

    def before_val(self, runner) -> None:
        self.before = get_random_states()

    def after_val(self, runner) -> None:
        """A run resumed after its validation does not repeat it, so training must not see that it took place."""
        set_random_states(self.before)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint[RANDOM_STATES], checkpoint[SPENT] = runner.random_states, runner.spent_s()
        for key in ("meta", "message_hub", "param_schedulers"):
            if key in checkpoint:
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        scalars.update({name: to_history(value) for name, value in scalars.items()})
        states = checkpoint.get(RANDOM_STATES)
        if not runner._resume or not states:
            return
        runner.spent_before_s = checkpoint.get(SPENT, 0.0)
        runner.states_to_restore = states[runner.rank % len(states)]
        if len(states) != runner.world_size:
            runner.logger.warning(
                f"the checkpoint is of {len(states)} processes, this run has {runner.world_size}: it goes on, but its "
                "random numbers are not those of an uninterrupted run"
            )


class _GlobalLossHook(Hook):
    """Makes the total loss that is logged, checked and recorded that of the global batch, not of the first process.

    Only the total: which parts a detector's loss has may differ from process to process.
    """

    priority = "HIGHEST"

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if runner.world_size > 1 and outputs and isinstance(outputs.get("loss"), torch.Tensor):
            loss = outputs["loss"].detach().clone()
            all_reduce(loss, op="mean")
            outputs["loss"] = loss


@RUNNERS.register_module()
class BenchmarkRunner(Runner):
    """mmengine's Runner, resumable exactly; see the module."""

    def __init__(self, *args, **kwargs):
        self.started, self.spent_before_s = time.monotonic(), 0.0
        self.random_states: list[dict] = []
        self.states_to_restore: dict | None = None
        # mmengine keeps logs and messages by this name and the second: runs of one process must not share them
        kwargs["experiment_name"] = f"{kwargs.get('experiment_name') or 'run'}_{next(_RUNS)}"
        super().__init__(*args, **kwargs)
        self.register_hook(_GlobalLossHook())
        self.register_hook(_StateHook())

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """As mmengine's; with ``log_to_console = False`` in the config only errors are shown, the files get all."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler and not self.cfg.get("log_to_console", True):
                handler.setLevel(logging.ERROR)
        return logger

    def spent_s(self) -> float:
        """Seconds of this run, with those before it was resumed."""
        return self.spent_before_s + time.monotonic() - self.started

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """As mmengine's; starting an iterator draws from the loader's own generator, not from the model's."""
        built = Runner.build_dataloader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)
        if built.generator is None:
            built.generator = torch.Generator().manual_seed(seed or 0)
        return built

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """As mmengine's, atomically and with the random states of all processes, which all must call it.

        Raises:
            UserError: the disk is full; what was written before is intact.
        """
        self.random_states = all_gather_object(get_random_states())
        if is_main_process():
            with replaced_atomically(Path(out_dir) / filename) as temporary:
                super().save_checkpoint(str(temporary.parent), temporary.name, *args, **kwargs)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str = "cpu",
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = ((r"^module\.", ""),),
    ) -> dict:
        """Load weights that must fit, and return the checkpoint.

        Raises:
            CheckpointError: unreadable, unsafe, or of another model; the first mismatches are listed.
        """
        checkpoint = read_torch_file(filename, map_location)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        state = checkpoint.get("state_dict", checkpoint)
        for pattern, replacement in revise_keys:
            state = {re.sub(pattern, replacement, name): value for name, value in state.items()}
        model = self.model.module if is_model_wrapper(self.model) else self.model
        try:
            model.load_state_dict(state, strict=strict)
        except RuntimeError as error:
            problems = [line.strip()[:300] for line in str(error).splitlines()[1:]]
            more = f"\n    ... and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
            raise CheckpointError(
                f"checkpoint {filename} does not fit the model:\n    " + "\n    ".join(problems[:LISTED]) + more,
                "use the config it was trained with; an encoder to start from goes into 'pretrained'",
            ) from error
        self._has_loaded = True
        self.logger.info(f"loaded {filename}")
        return checkpoint
