# The full-size UperNet config on the demonstration's scenes (64 x 64 pixels) with the demonstration's encoder:
# smaller heads and batches, a shorter schedule; no flip (a mirrored digit is another shape).
#
#   emae-mm demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../upernet_vit-base_8xb2-160k_ade20k-512x512.py", "../../_base_/demo_encoder.py"]

record = dict(protocol="demo-upernet", data="emae-demo")
data_root = "data/demo/ade20k"
norm_cfg = dict(type="BN", requires_grad=True)
embed_dim = _base_.encoder_arch.embed_dim
width = 32
class_weight = [0.2] + [1.0] * 4  # background is four of five pixels

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        arch=_base_.encoder_arch,
        img_size=_base_.img_size,
        patch_size=_base_.patch_size,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(embed_dim=embed_dim, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[embed_dim] * 4,
        channels=width,
        num_classes=5,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=dict(
        in_channels=embed_dim,
        channels=width,
        num_classes=5,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
    test_cfg=dict(crop_size=(64, 64), stride=(64, 64)),
)

train_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(
    batch_size=16, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader

max_iters = 200
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=10),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=10, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
