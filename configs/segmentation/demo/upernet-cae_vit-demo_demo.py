# The full-size UperNet config in CAE's settings on the demonstration's scenes with the demonstration's encoder.
#
#   python tools/train.py configs/segmentation/demo/upernet-cae_vit-demo_demo.py --data-root DIR \
#       --pretrained encoder.pth
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../upernet-cae_vit-base_8xb2-160k_ade20k-512x512.py", "../../_base_/demo_upernet.py"]

record = dict(protocol="demo-upernet-cae", data="emae-demo")
model = _base_.small_model
global_batch_size = _base_.small_train_loader.batch_size
train_dataloader = _base_.small_train_loader
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader
optim_wrapper = _base_.small_optim_wrapper
param_scheduler = _base_.small_schedule
train_cfg = dict(max_iters=_base_.small_iters, val_interval=_base_.small_iters)
default_hooks = dict(checkpoint=dict(interval=_base_.small_iters))
