# Linear probe of the small ablations: the demonstration's probe with their encoder (56x64).
#
#   emae-mm suite ablations_demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = [
    "../linear_vit-base-p16_8xb2048-90e_in1k.py",
    "../../_base_/ablation_encoder.py",
]

train_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(
        type="emae_mm.RandomResizedCropOnce",
        scale=_base_.img_size,
        crop_ratio_range=(0.6, 1.0),  # a smaller crop, or a mirror image, is no longer that digit
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="mmpretrain.PackInputs"),
]
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=_base_.img_size[::-1], backend="pillow", interpolation="bicubic"),
    dict(type="mmpretrain.PackInputs"),
]

global_batch_size = 32
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=256, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))  # five best of few classes say little
test_evaluator = val_evaluator

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    neck=dict(input_features=_base_.encoder_arch["embed_dim"]),
    head=dict(in_channels=_base_.encoder_arch["embed_dim"]),
)

# LARS changes the weights by a fixed share each step: made for thousands of steps on large batches, it diverges or does
# not move in the few hundred of a small probe (tried with lr 2, 5 and 20). AdamW takes its place here.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-2, weight_decay=0.0), paramwise_cfg=dict(_delete_=True)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, begin=1, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=5, val_interval=5)
auto_scale_lr = dict(base_batch_size=32)

record = dict(protocol="ablation-demo-linear-5e", data="emae-demo")
