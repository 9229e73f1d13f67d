# Linear probe on a folder of small images (train/CLASS/*, val/CLASS/*), resized to 64x64.
#
#   python tools/train.py configs/classification/tiny/linear_vit-tiny64_folder.py --data-root DIR \
#       --pretrained encoder.pth
#
# There is no published result; for other data than imagenet_tiny add record.data=NAME, the name in the leaderboard.
_base_ = ["../../_base_/small_linear.py", "../../_base_/tiny_encoder.py"]

load, crop, flip, pack = _base_.train_pipeline
global_batch_size = 64
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=[load, dict(crop, scale=_base_.img_size), flip, pack]))
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    neck=dict(input_features=_base_.encoder_arch["embed_dim"]),
    head=dict(in_channels=_base_.encoder_arch["embed_dim"]),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
train_cfg = dict(max_epochs=6, val_interval=6)
auto_scale_lr = dict(base_batch_size=64)
record = dict(protocol="tiny64-linear-6e", data="")  # named after the data root's folder
