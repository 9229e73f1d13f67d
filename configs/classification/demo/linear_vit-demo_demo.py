# Linear probe on the demonstration data: the full-size probe at 64x64 with other sizes, batch, lr and epochs.
#
#   emae-mm demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../../_base_/small_linear.py", "../../_base_/demo_encoder.py"]

load, crop, flip, pack = _base_.train_pipeline
# a smaller crop, or a mirror image, is no longer that digit
crop = dict(crop, scale=_base_.img_size, crop_ratio_range=(0.6, 1.0))
train_dataloader = dict(dataset=dict(pipeline=[load, crop, pack]))
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    neck=dict(input_features=_base_.encoder_arch["embed_dim"]),
    head=dict(in_channels=_base_.encoder_arch["embed_dim"]),
)
record = dict(protocol="demo-linear-5e", data="emae-demo")
