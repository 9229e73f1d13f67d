"""A hook that reports progress to whoever started the run."""

from collections.abc import Callable

from mmengine.hooks import Hook


class ProgressHook(Hook):
    """Reports every step to a callback (step, total steps, loss, what).

    Args:
        report: called with positional (step, total, loss or None) and keyword ``what``.
    """

    priority = "VERY_LOW"

    def __init__(self, report: Callable[..., None]):
        self.report = report

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        loss = (outputs or {}).get("loss")
        self.report(runner.iter + 1, runner.max_iters, None if loss is None else float(loss.detach()), what="step")

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.report(batch_idx + 1, len(runner.val_dataloader), what="validation")

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.report(batch_idx + 1, len(runner.test_dataloader), what="test")
