# What the UperNet configs for folders of small ADE20K-format images (about 240 x 180 pixels) change in the full-size
# ones; variables only, so that it can stand beside another base. Crops of 128, smaller heads and batches, a short
# schedule.
_base_ = "tiny_encoder.py"

embed_dim = _base_.encoder_arch.embed_dim
batch_norm = dict(type="BN", requires_grad=True)
small_head = dict(channels=48, norm_cfg=batch_norm)
small_model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        arch=_base_.encoder_arch,
        img_size=128,
        patch_size=_base_.patch_size,
        drop_path_rate=0.0,
        out_indices=(1, 2, 4, 5),
    ),
    neck=dict(embed_dim=embed_dim, norm_cfg=batch_norm),
    decode_head=dict(in_channels=[embed_dim] * 4, **small_head),
    auxiliary_head=dict(in_channels=embed_dim, **small_head),
    test_cfg=dict(crop_size=(128, 128), stride=(96, 96)),
)

small_train_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
small_test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=(240, 180), keep_ratio=True),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
small_train_loader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=small_train_pipeline)
)
small_test_loader = dict(
    batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(pipeline=small_test_pipeline)
)

small_iters = 150
small_schedule = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=20, end=small_iters),
]
small_optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=0.85))
