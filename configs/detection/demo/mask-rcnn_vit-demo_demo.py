# The full-size Mask R-CNN config on the demonstration's scenes (64 x 64 pixels) with the demonstration's encoder:
# smaller images, heads and batches, a shorter schedule; no flip (a mirrored digit is another shape).
#
#   emae-mm demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py", "../../_base_/demo_encoder.py"]

record = dict(protocol="demo-maskrcnn", data="emae-demo")
data_root = "data/demo/coco"
norm_cfg = dict(type="BN", requires_grad=True)
width = 32

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        arch=_base_.encoder_arch,
        img_size=_base_.img_size,
        patch_size=_base_.patch_size,
        drop_path_rate=0.0,
        # four groups of one block each: all are global
        out_indices=(0, 1, 2, 3),
        global_blocks=(0, 1, 2, 3),
    ),
    neck=[
        dict(
            type="emae_mm.MultiScaleFromStride16",
            embed_dim=_base_.encoder_arch.embed_dim,
            norm_cfg=dict(type="GN", num_groups=32),
        ),
        dict(
            type="FPN",
            in_channels=[_base_.encoder_arch.embed_dim] * 4,
            out_channels=width,
            num_outs=5,
            norm_cfg=norm_cfg,
        ),
    ],
    # 8-pixel patches: half the full-size strides
    rpn_head=dict(
        in_channels=width, feat_channels=width, num_convs=1, anchor_generator=dict(strides=[2, 4, 8, 16, 32])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, featmap_strides=[2, 4, 8, 16]),
        bbox_head=dict(
            in_channels=width, conv_out_channels=width, fc_out_channels=128, num_classes=4, norm_cfg=norm_cfg
        ),
        mask_roi_extractor=dict(out_channels=width, featmap_strides=[2, 4, 8, 16]),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width, num_classes=4, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=32)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=16, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=20), rcnn=dict(max_per_img=10)),
)

train_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=(64, 64), ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute", crop_size=(64, 64), recompute_bbox=True, allow_negative_crop=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="Pad", size=(64, 64), pad_val=dict(img=(103.53, 116.28, 123.675), masks=0)),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=(64, 64), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
val_dataloader = dict(
    batch_size=16, num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "/annotations/instances_val2017.json")
test_evaluator = val_evaluator

max_iters = 130
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, custom_keys={"pos_embed": dict(decay_mult=0.0), "rel_pos": dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=0, end=max_iters, T_max=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
