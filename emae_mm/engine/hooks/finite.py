"""A run stops at the first loss that is not finite, and says on which files."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook

from emae_mm.engine.hooks.checkpoints import checkpoints_in
from emae_mm.engine.hooks.meters import GRADIENT_NORM
from emae_mm.errors import UserError
from emae_mm.fileio import write_text
from emae_mm.registry import HOOKS

REPORT_FILE = "non_finite.json"


def file_names(data_batch: Any) -> list[str]:
    """The image files of a batch as a data loader gives it; empty where its samples do not name them."""
    samples = data_batch.get("data_samples") if isinstance(data_batch, dict) else None
    return [str(sample.get("img_path")) for sample in samples or [] if sample.get("img_path")]


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stops the run, on all processes, at the first loss or gradient norm that is not finite, before it is saved.

    ``non_finite.json`` in the work directory then holds the iteration, epoch, learning rates and seed, the last good
    checkpoint and, for each process, its losses, the gradient norm and the file names of its batch. Numbers that are
    not finite stand there as strings ("nan", "inf"). Under a loss scaler (float16) the gradient norm may overflow:
    the scaler then leaves the step out, and only losses are looked at.

    Raises:
        UserError: names the iteration, the losses, the report and the last good checkpoint.
    """

    priority = "VERY_HIGH"

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        watched = {name: value.detach() for name, value in (outputs or {}).items() if "loss" in name}
        values = {name: float(value) for name, value in watched.items()}
        history = runner.message_hub.log_scalars.get(GRADIENT_NORM)
        if history is not None and not hasattr(runner.optim_wrapper, "loss_scaler"):
            values["grad_norm"] = float(history.current())
        bad = not all(map(math.isfinite, values.values()))
        device = next(iter(watched.values())).device if watched else "cpu"
        anywhere = torch.tensor(float(bad), device=device)
        all_reduce(anywhere, "max")  # one process alone must not leave the others waiting for it
        if anywhere.item():
            self._stop(runner, bad, values, file_names(data_batch))

    @staticmethod
    def _stop(runner, bad: bool, values: dict[str, float], names: list[str]) -> None:
        own = dict(rank=get_rank(), finite=not bad, losses=values, files=names)
        processes = all_gather_object(own)
        saved = checkpoints_in(runner.work_dir)
        report = dict(
            iteration=runner.iter + 1,
            epoch=runner.epoch + 1,
            learning_rates={name: sorted(set(rates)) for name, rates in runner.optim_wrapper.get_lr().items()},
            seed=runner.seed,
            last_good_checkpoint=str(saved[-1]) if saved else None,
            processes=processes,
        )
        path = Path(runner.work_dir) / REPORT_FILE
        if is_main_process():
            write_text(path, json.dumps(_readable(report), indent=1) + "\n")
        first = next(process for process in processes if not process["finite"])
        where = f" on process {first['rank']}" if len(processes) > 1 else ""
        raise UserError(
            f"the loss is not finite at iteration {runner.iter + 1}{where}: {first['losses']}",
            "lower the learning rate or the precision's risk (dtype='float32'); the step, its losses and its files are "
            f"in {path}; last good checkpoint: {report['last_good_checkpoint'] or 'none yet'}",
        )


def _readable(value: Any) -> Any:
    """The same with numbers that are not finite as strings, for which JSON has no number."""
    if isinstance(value, dict):
        return {key: _readable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_readable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
