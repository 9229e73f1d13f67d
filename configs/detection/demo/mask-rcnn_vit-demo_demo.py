# The full-size Mask R-CNN config on the demonstration's scenes (64 x 64 pixels) with the demonstration's encoder:
# smaller images, heads and batches, a shorter schedule.
#
#   emae-mm demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py", "../../_base_/demo_detection.py"]

record = dict(protocol="demo-maskrcnn", data="emae-demo")
norm_cfg = dict(type="BN", requires_grad=True)
embed_dim = _base_.encoder_arch.embed_dim

model = dict(
    _base_.small_model,
    # four groups of one block each: all are global
    backbone=dict(_base_.small_model.backbone, out_indices=(0, 1, 2, 3), global_blocks=(0, 1, 2, 3)),
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

train_dataloader = dict(
    _base_.small_train_loader, dataset=dict(_base_.small_train_loader.dataset, pipeline=_base_.small_pipeline)
)
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader
val_evaluator = _base_.small_evaluator
test_evaluator = val_evaluator

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
default_hooks = dict(checkpoint=dict(interval=max_iters))
pictures = dict(threshold=0.2)  # scores are low after so few steps
