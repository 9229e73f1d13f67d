# Linear probe for small images: the full-size probe with other sizes, batch, lr and epochs. A child config gives the
# encoder, the training pipeline and the record.
_base_ = ["../classification/linear_vit-base-p16_8xb2048-90e_in1k.py", "small_classification.py"]

global_batch_size = 32
train_dataloader = dict(batch_size=32, **_base_.small_loader)
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))  # five best of few classes say little
test_evaluator = val_evaluator

# LARS changes the weights by a fixed share each step: made for thousands of steps on large batches, it diverges or does
# not move in the few hundred of a small probe (tried with lr 2, 5 and 20). AdamW takes its place here.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-2, weight_decay=0.0), paramwise_cfg=dict(_delete_=True)
)
# one epoch of warm-up
param_scheduler = [dict(_base_.param_scheduler[0], end=1), dict(_base_.param_scheduler[1], begin=1)]
train_cfg = dict(max_epochs=5, val_interval=5)
auto_scale_lr = dict(base_batch_size=32)
