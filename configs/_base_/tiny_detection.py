# What the detectors for small real images share: images of 160 x 160 pixels, the encoder for small images, heads of 48
# channels. A child config puts the parts of `small` where they belong.
_base_ = ["./tiny_encoder.py"]
width = 48
extractor = dict(out_channels=width, featmap_strides=[2, 4, 8, 16])  # 8-pixel patches: half the full-size strides

small_model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(arch=_base_.encoder_arch, img_size=160, patch_size=_base_.patch_size, drop_path_rate=0.0),
    rpn_head=dict(
        in_channels=width, feat_channels=width, num_convs=1, anchor_generator=dict(strides=[2, 4, 8, 16, 32])
    ),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        bbox_head=dict(in_channels=width, conv_out_channels=width, fc_out_channels=256),
        mask_roi_extractor=extractor,
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=48)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=100), rcnn=dict(max_per_img=50)),
)
# windows of 7 x 7 patches in a grid of 20 x 20, two of the six blocks global
small_vitdet = dict(
    small_model,
    backbone=dict(
        small_model["backbone"], position_size=_base_.img_size, out_indices=(5,), window_size=7, global_blocks=(2, 5)
    ),
    neck=dict(embed_dim=_base_.encoder_arch.embed_dim, out_channels=width),
)

load, annotations = dict(type="emae_mm.LoadImage"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
jitter = [
    dict(type="RandomResize", scale=(160, 160), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute", crop_size=(160, 160), recompute_bbox=True, allow_negative_crop=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
]
pad = dict(type="Pad", size=(160, 160), pad_val=dict(img=(103.53, 116.28, 123.675), masks=0))
flip = dict(type="RandomFlip", prob=0.5)
pack = dict(type="PackDetInputs")
small_pipeline = [load, annotations, *jitter, pad, flip, pack]
small_vitdet_pipeline = [load, annotations, flip, *jitter, pack]
small_test_pipeline = [
    load,
    dict(type="Resize", scale=(160, 160), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
small_train_loader = dict(batch_size=8, num_workers=0, persistent_workers=False)
small_test_loader = dict(small_train_loader, dataset=dict(pipeline=small_test_pipeline))

small_iters = 150
small_optimizer = dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
