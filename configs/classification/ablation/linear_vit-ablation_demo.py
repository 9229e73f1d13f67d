# Linear probe of the small ablations: the demonstration's probe with their encoder (56x64).
#
#   emae-mm suite ablations_demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../../_base_/small_linear.py", "../../_base_/ablation_encoder.py"]

load, crop, flip, pack = _base_.train_pipeline
# a smaller crop, or a mirror image, is no longer that digit
crop = dict(crop, scale=_base_.img_size, crop_ratio_range=(0.6, 1.0))
train_dataloader = dict(dataset=dict(pipeline=[load, crop, pack]))
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=_base_.img_size[::-1], backend="pillow", interpolation="bicubic"),
    dict(type="mmpretrain.PackInputs"),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    neck=dict(input_features=_base_.encoder_arch["embed_dim"]),
    head=dict(in_channels=_base_.encoder_arch["embed_dim"]),
)
record = dict(protocol="ablation-demo-linear-5e", data="emae-demo")
pictures = None  # of thirty-six small probes
