# Fine-tuning for 64x64 images: the full-size recipe with other sizes, batch and epochs; its full learning rate, too,
# since so few steps need it. A child config gives the encoder, the training pipeline and the record.
_base_ = ["../classification/finetune_vit-base-p16_8xb128-100e_in1k.py", "small_classification.py"]

global_batch_size = 32
train_dataloader = dict(batch_size=32, **_base_.small_loader)
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))  # five best of few classes say little
test_evaluator = val_evaluator

# one epoch of warm-up
param_scheduler = [dict(_base_.param_scheduler[0], end=1), dict(_base_.param_scheduler[1], begin=1)]
train_cfg = dict(max_epochs=5, val_interval=5)
auto_scale_lr = dict(base_batch_size=32)
