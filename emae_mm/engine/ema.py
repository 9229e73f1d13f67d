"""When a teacher follows its student."""

from mmengine.hooks import Hook

from emae_mm.engine.layer_decay import unwrap
from emae_mm.errors import ConfigError
from emae_mm.registry import HOOKS


@HOOKS.register_module()
class FollowStudentHook(Hook):
    """Calls the model's ``update_teacher(iteration, iterations, per_epoch, stepped)`` after every iteration.

    By then the optimiser has made its step, if it makes one in this iteration, and no checkpoint has been saved yet.

    Raises:
        ConfigError: (before training) the model has no teacher that is updated this way.
    """

    priority = "NORMAL"

    def before_train(self, runner) -> None:
        if not hasattr(unwrap(runner.model), "update_teacher"):
            raise ConfigError(
                f"{type(unwrap(runner.model)).__name__} has no teacher",
                "remove emae_mm.FollowStudentHook from the hooks",
            )

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        unwrap(runner.model).update_teacher(
            iteration=runner.iter,
            iterations=runner.max_iters,
            per_epoch=len(runner.train_dataloader),
            stepped=runner.optim_wrapper.should_update(),
        )
