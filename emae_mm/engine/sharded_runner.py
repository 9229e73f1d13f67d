"""mmengine's FlexibleRunner for sharded models, with what our other runner guarantees."""

from mmengine.runner import FlexibleRunner

from emae_mm.engine import fsdp  # noqa: F401  registers the strategy
from emae_mm.engine.fitting import WITHOUT_WRAPPER
from emae_mm.engine.runner import ExactResumption, show_errors_only
from emae_mm.errors import ConfigError
from emae_mm.registry import RUNNERS


@RUNNERS.register_module()
class ShardedRunner(ExactResumption, FlexibleRunner):
    """mmengine's FlexibleRunner with a :class:`~emae_mm.engine.fsdp.ShardedStrategy`, resumable exactly."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not self.cfg.get("log_to_console", True):
            show_errors_only(self.logger)

    def save_checkpoint(self, *args, **kwargs) -> None:
        """As the other runner's.

        Raises:
            ConfigError: in the middle of a gradient accumulation, whose gradients are sharded.
        """
        if not self.optim_wrapper.should_update():
            raise ConfigError(
                f"FSDP cannot save a checkpoint within an accumulation (iteration {self.iter + 1})",
                "make the checkpoint interval a multiple of optim_wrapper.accumulative_counts",
            )
        super().save_checkpoint(*args, **kwargs)

    def load_checkpoint(self, filename: str, map_location="cpu", strict: bool = True, revise_keys=WITHOUT_WRAPPER):
        """As mmengine's, but for weights that must fit.

        Raises:
            CheckpointError: unreadable, unsafe, or of another model; the first mismatches are listed.
        """
        super().load_checkpoint(filename, map_location, strict, revise_keys)
