"""A teacher that follows its student in step with the optimiser."""

from mmengine.hooks import Hook

from emae_mm.engine.layer_decay import unwrap
from emae_mm.registry import HOOKS


@HOOKS.register_module()
class TeacherBeforeStepHook(Hook):
    """Calls the model's ``update_teacher()`` right before every optimiser step.

    A teacher with momentum 0 so holds what the student was before its last step. Without gradient accumulation that is
    what an update at the end of every forward pass gives; with it, the passes of one step have the same teacher.
    """

    def before_train(self, runner) -> None:
        model = unwrap(runner.model)
        model.teacher_follows_steps = True
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: model.update_teacher())
