# What the demonstration's UperNet configs change in the full-size ones; variables only, so that it can stand beside
# another base. Scenes of 64 x 64 pixels, smaller heads and batches, a shorter schedule; no flip (a mirrored digit is
# another shape).
_base_ = "demo_encoder.py"

embed_dim = _base_.encoder_arch.embed_dim
batch_norm = dict(type="BN", requires_grad=True)
small_head = dict(
    channels=32,
    num_classes=5,
    norm_cfg=batch_norm,
    loss_decode=dict(class_weight=[0.2] + [1.0] * 4),  # background is four of five pixels
)
small_model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        arch=_base_.encoder_arch,
        img_size=_base_.img_size,
        patch_size=_base_.patch_size,
        drop_path_rate=0.0,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(embed_dim=embed_dim, norm_cfg=batch_norm),
    decode_head=dict(in_channels=[embed_dim] * 4, **small_head),
    auxiliary_head=dict(in_channels=embed_dim, **small_head),
    test_cfg=dict(crop_size=(64, 64), stride=(64, 64)),
)

small_data = dict(
    data_root="data/demo/ade20k",
    pipeline=[
        dict(type="emae_mm.LoadImage"),
        dict(type="LoadAnnotations", reduce_zero_label=True),
        dict(type="PackSegInputs"),
    ],
)
small_train_loader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=small_data)
small_test_loader = dict(batch_size=16, num_workers=0, persistent_workers=False, dataset=small_data)

small_iters = 200
small_schedule = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=10),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=10, end=small_iters),
]
small_optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=dict(layer_decay_rate=1.0))
