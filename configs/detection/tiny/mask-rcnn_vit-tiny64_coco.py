# The full-size Mask R-CNN config for a folder of a few small COCO-format images (at most about 320 pixels a side) with
# the encoder for small images: 160 pixels, smaller heads and batches, a short schedule. With some dozens of images the
# scores say little; the command and the data's layout are the full-size ones.
#
#   python tools/train.py configs/detection/tiny/mask-rcnn_vit-tiny64_coco.py --data-root DIR --pretrained encoder.pth
#
# There is no published result.
_base_ = ["../mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py", "../../_base_/tiny_encoder.py"]

record = dict(protocol="tiny-maskrcnn-lsj160", data="")  # named after the data root's folder
norm_cfg = dict(type="BN", requires_grad=True)
embed_dim = _base_.encoder_arch.embed_dim
width = 48

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        arch=_base_.encoder_arch,
        img_size=160,
        patch_size=_base_.patch_size,
        drop_path_rate=0.0,
        out_indices=(1, 2, 4, 5),
        global_blocks=(2, 5),
    ),
    neck=[
        dict(type="emae_mm.MultiScaleFromStride16", embed_dim=embed_dim, norm_cfg=dict(type="GN", num_groups=32)),
        dict(type="FPN", in_channels=[embed_dim] * 4, out_channels=width, num_outs=5, norm_cfg=norm_cfg),
    ],
    # 8-pixel patches: half the full-size strides
    rpn_head=dict(
        in_channels=width, feat_channels=width, num_convs=1, anchor_generator=dict(strides=[2, 4, 8, 16, 32])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, featmap_strides=[2, 4, 8, 16]),
        bbox_head=dict(in_channels=width, conv_out_channels=width, fc_out_channels=256, norm_cfg=norm_cfg),
        mask_roi_extractor=dict(out_channels=width, featmap_strides=[2, 4, 8, 16]),
        mask_head=dict(num_convs=2, in_channels=width, conv_out_channels=width, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=48)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=100), rcnn=dict(max_per_img=50)),
)

train_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=(160, 160), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_type="absolute", crop_size=(160, 160), recompute_bbox=True, allow_negative_crop=True),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type="Pad", size=(160, 160), pad_val=dict(img=(103.53, 116.28, 123.675), masks=0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=(160, 160), keep_ratio=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 150
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, custom_keys={"pos_embed": dict(decay_mult=0.0), "rel_pos": dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=0, end=max_iters, T_max=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=50))
