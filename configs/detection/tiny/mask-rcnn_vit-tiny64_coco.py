# The full-size Mask R-CNN config for a folder of a few small COCO-format images (at most about 320 pixels a side) with
# the encoder for small images: 160 pixels, smaller heads and batches, a short schedule. With some dozens of images the
# scores say little; the command and the data's layout are the full-size ones.
#
#   python tools/train.py configs/detection/tiny/mask-rcnn_vit-tiny64_coco.py --data-root DIR --pretrained encoder.pth
#
# There is no published result.
_base_ = ["../mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py", "../../_base_/tiny_detection.py"]

record = dict(protocol="tiny-maskrcnn-lsj160", data="")  # named after the data root's folder
norm_cfg = dict(type="BN", requires_grad=True)
embed_dim = _base_.encoder_arch.embed_dim

model = dict(
    _base_.small_model,
    backbone=dict(_base_.small_model.backbone, out_indices=(1, 2, 4, 5), global_blocks=(2, 5)),
    neck=[
        dict(_base_.model.neck[0], embed_dim=embed_dim),
        dict(_base_.model.neck[1], in_channels=[embed_dim] * 4, out_channels=_base_.width, norm_cfg=norm_cfg),
    ],
    roi_head=dict(
        _base_.small_model.roi_head,
        bbox_head=dict(_base_.small_model.roi_head.bbox_head, norm_cfg=norm_cfg),
        mask_head=dict(_base_.small_model.roi_head.mask_head, norm_cfg=norm_cfg),
    ),
)

train_dataloader = dict(_base_.small_train_loader, dataset=dict(pipeline=_base_.small_pipeline))
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader

max_iters = _base_.small_iters
global_batch_size = _base_.small_train_loader.batch_size
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=_base_.small_optimizer,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg,
)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=20),
    dict(_base_.param_scheduler[1], end=max_iters, T_max=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=50))
