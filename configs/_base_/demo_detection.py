# What the demonstration's detectors share: scenes of 64 x 64 pixels, the demonstration's encoder, heads of 32 channels;
# no flip, because a mirrored digit is another shape. A child config puts the parts of `small` where they belong.
_base_ = ["./demo_encoder.py"]
width = 32
demo_root = "data/demo/coco"
extractor = dict(out_channels=width, featmap_strides=[2, 4, 8, 16])  # 8-pixel patches: half the full-size strides

small_model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(arch=_base_.encoder_arch, img_size=_base_.img_size, patch_size=_base_.patch_size, drop_path_rate=0.0),
    rpn_head=dict(
        in_channels=width, feat_channels=width, num_convs=1, anchor_generator=dict(strides=[2, 4, 8, 16, 32])
    ),
    roi_head=dict(
        bbox_roi_extractor=extractor,
        bbox_head=dict(in_channels=width, conv_out_channels=width, fc_out_channels=128, num_classes=4),
        mask_roi_extractor=extractor,
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width, num_classes=4),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=32)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=16, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=20), rcnn=dict(max_per_img=10)),
)
# windows of 4 x 4 patches, two of the four blocks global
small_vitdet = dict(
    small_model,
    backbone=dict(
        small_model["backbone"], position_size=_base_.img_size, out_indices=(3,), window_size=4, global_blocks=(1, 3)
    ),
    neck=dict(embed_dim=_base_.encoder_arch.embed_dim, out_channels=width),
)

load, annotations = dict(type="emae_mm.LoadImage"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)
jitter = [
    dict(type="RandomResize", scale=(64, 64), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute", crop_size=(64, 64), recompute_bbox=True, allow_negative_crop=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
]
pad = dict(type="Pad", size=(64, 64), pad_val=dict(img=(103.53, 116.28, 123.675), masks=0))
pack = dict(type="PackDetInputs")
small_pipeline = [load, annotations, *jitter, pad, pack]
small_vitdet_pipeline = [load, annotations, *jitter, pack]
small_test_pipeline = [
    load,
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
small_train_loader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(data_root=demo_root))
small_test_loader = dict(
    small_train_loader, batch_size=16, dataset=dict(data_root=demo_root, pipeline=small_test_pipeline)
)
small_evaluator = dict(ann_file=demo_root + "/annotations/instances_val2017.json")

small_iters = 130
small_optimizer = dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05)
