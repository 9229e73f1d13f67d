"""mmengine's Runner with atomic checkpoints that are read safely, must fit, and let a run go on bit for bit."""

import itertools
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from emae_mm.checkpoints.reading import read_torch_file
from emae_mm.engine.blocks import checkpoint_activations
from emae_mm.engine.compilation import compile_options, compile_target
from emae_mm.engine.fitting import WITHOUT_WRAPPER, load_fitting
from emae_mm.engine.layer_decay import unwrap
from emae_mm.engine.partial_gradients import average_partial_gradients, restore_partial_gradients
from emae_mm.engine.passes import MARK, check_same_passes
from emae_mm.engine.plain import to_history, to_plain
from emae_mm.engine.random_states import get_random_states, set_random_states
from emae_mm.fileio import replaced_atomically
from emae_mm.registry import RUNNERS

RANDOM_STATES, SPENT, GRADIENTS = "random_states", "spent_s", "partial_gradients"
_RUNS = itertools.count(1)


class _StateHook(Hook):
    """What a checkpoint holds beyond mmengine's: all processes' random states, the time spent, gradients so far."""

    priority = "LOWEST"

    def before_train(self, runner) -> None:
        """After everything that draws while a run is set up."""
        if runner.states_to_restore is not None:
            set_random_states(runner.states_to_restore)
            runner.states_to_restore = None
        restore_partial_gradients(unwrap(runner.model), runner.gradients_to_restore)
        runner.gradients_to_restore = {}

    def before_val(self, runner) -> None:
        self.before = get_random_states()

    def after_val(self, runner) -> None:
        """A run resumed after its validation does not repeat it, so training must not see that it took place."""
        set_random_states(self.before)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint[RANDOM_STATES], checkpoint[SPENT] = runner.random_states, runner.spent_s()
        checkpoint[MARK] = runner.cfg.get(MARK, 1)
        if runner.partial_gradients:
            checkpoint[GRADIENTS] = runner.partial_gradients
        for key in ("meta", "message_hub", "param_schedulers"):
            if key in checkpoint:
                checkpoint[key] = to_plain(checkpoint[key])

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        scalars = checkpoint.get("message_hub", {}).get("log_scalars", {})
        scalars.update({name: to_history(value) for name, value in scalars.items()})
        if runner._resume and MARK in checkpoint:
            check_same_passes(runner.cfg, checkpoint[MARK])
        states = checkpoint.get(RANDOM_STATES)
        gradients = checkpoint.pop(GRADIENTS, {})
        if not runner._resume or not states:
            return
        runner.spent_before_s, runner.gradients_to_restore = checkpoint.get(SPENT, 0.0), gradients
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


class ExactResumption:
    """What both of our runners add to mmengine's; a mixin that stands before mmengine's class.

    Checkpoints are written atomically and hold the random states of all processes; the loss that is logged is that of
    the global batch; ``log_to_console = False`` in the config shows errors only, the log files get all.
    """

    def __init__(self, *args, **kwargs):
        self.started, self.spent_before_s = time.monotonic(), 0.0
        self.random_states: list[dict] = []
        self.states_to_restore: dict | None = None
        self.partial_gradients: dict[str, torch.Tensor] = {}
        self.gradients_to_restore: dict[str, torch.Tensor] = {}
        # mmengine keeps logs and messages by this name and the second: runs of one process must not share them
        kwargs["experiment_name"] = f"{kwargs.get('experiment_name') or 'run'}_{next(_RUNS)}"
        super().__init__(*args, **kwargs)
        self.register_hook(_GlobalLossHook())
        self.register_hook(_StateHook())

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
        self.partial_gradients = average_partial_gradients(unwrap(self.model), self.optim_wrapper)
        path = Path(out_dir) / filename
        with replaced_atomically(path) if is_main_process() else nullcontext(path) as target:
            super().save_checkpoint(str(target.parent), target.name, *args, **kwargs)
        self.partial_gradients = {}


def show_errors_only(logger: MMLogger) -> None:
    """Let a logger's console show errors only; its files get all."""
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.ERROR)


@RUNNERS.register_module()
class BenchmarkRunner(ExactResumption, Runner):
    """mmengine's Runner, resumable exactly; see the module.

    Config keys beyond mmengine's: ``activation_checkpointing`` may be True (:func:`checkpoint_activations`), and
    ``compile`` compiles the deterministic part of the model (:func:`compile_target`).
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # mmengine would switch it on, too, but knows names only and loses keyword arguments
        which = self.cfg.pop("activation_checkpointing", None)
        if which and self._train_dataloader is not None:
            names = checkpoint_activations(unwrap(self.model), which)
            self.logger.info(f"activations of {len(names)} modules are computed anew: {', '.join(names)}")

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        if not self.cfg.get("log_to_console", True):
            show_errors_only(logger)
        return logger

    def _maybe_compile(self, target: str) -> None:
        """In place of mmengine's, which would compile the optimiser's step and the drawing of masks as well."""
        options = compile_options(self.cfg.get("compile"))
        if options is not None:
            target = compile_target(unwrap(self.model), options)
            self.logger.info(f"{type(unwrap(self.model)).__name__}.{target} is compiled; the first steps take longer")

    def load_checkpoint(
        self,
        filename: str,
        map_location: str = "cpu",
        strict: bool = True,
        revise_keys: Sequence[tuple[str, str]] = WITHOUT_WRAPPER,
    ) -> dict:
        """Load weights that must fit, and return the checkpoint.

        Raises:
            CheckpointError: unreadable, unsafe, or of another model; the first mismatches are listed.
        """
        checkpoint = read_torch_file(filename, map_location)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        load_fitting(unwrap(self.model), checkpoint, filename, strict, revise_keys)
        self._has_loaded = True
        self.logger.info(f"loaded {filename}")
        return checkpoint
