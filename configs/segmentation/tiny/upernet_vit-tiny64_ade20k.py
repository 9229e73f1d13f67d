# The full-size UperNet config for a folder of small ADE20K-format images (about 240 x 180 pixels) with the encoder for
# small images.
#
#   python tools/train.py configs/segmentation/tiny/upernet_vit-tiny64_ade20k.py --data-root DIR \
#       --pretrained encoder.pth
#
# There is no published result.
_base_ = ["../upernet_vit-base_8xb2-160k_ade20k-512x512.py", "../../_base_/tiny_upernet.py"]

record = dict(protocol="tiny-upernet-128", data="")  # named after the data root's folder
model = _base_.small_model
global_batch_size = _base_.small_train_loader.batch_size
train_dataloader = _base_.small_train_loader
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader
optim_wrapper = _base_.small_optim_wrapper
param_scheduler = _base_.small_schedule
train_cfg = dict(max_iters=_base_.small_iters, val_interval=_base_.small_iters)
default_hooks = dict(checkpoint=dict(interval=50))
