# The full-size UperNet config for a folder of small ADE20K-format images (about 240 x 180 pixels) with the encoder for
# small images: crops of 128, smaller heads and batches, a short schedule.
#
#   python tools/train.py configs/segmentation/tiny/upernet_vit-tiny64_ade20k.py --data-root DIR \
#       --pretrained encoder.pth
#
# There is no published result.
_base_ = ["../upernet_vit-base_8xb2-160k_ade20k-512x512.py", "../../_base_/tiny_encoder.py"]

record = dict(protocol="tiny-upernet-128", data="")  # named after the data root's folder
norm_cfg = dict(type="BN", requires_grad=True)
embed_dim = _base_.encoder_arch.embed_dim
width = 48

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        arch=_base_.encoder_arch,
        img_size=128,
        patch_size=_base_.patch_size,
        drop_path_rate=0.0,
        out_indices=(1, 2, 4, 5),
    ),
    neck=dict(embed_dim=embed_dim, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[embed_dim] * 4, channels=width, norm_cfg=norm_cfg),
    auxiliary_head=dict(in_channels=embed_dim, channels=width, norm_cfg=norm_cfg),
    test_cfg=dict(crop_size=(128, 128), stride=(96, 96)),
)

train_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=(240, 180), keep_ratio=True),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 150
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=20, end=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=50))
