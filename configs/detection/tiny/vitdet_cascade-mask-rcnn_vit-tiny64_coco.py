# The full-size ViTDet Cascade Mask R-CNN config for a folder of a few small COCO-format images with the small encoder:
# 160 pixels, smaller windows, heads and batches, a short schedule.
#
#   python tools/train.py configs/detection/tiny/vitdet_cascade-mask-rcnn_vit-tiny64_coco.py \
#       --data-root DIR --pretrained encoder.pth
#
# There is no published result.
_base_ = ["../vitdet_cascade-mask-rcnn_vit-base_8xb8-lsj-100e_coco.py", "../../_base_/tiny_detection.py"]

record = dict(protocol="tiny-vitdet-cascade-lsj160", data="")  # named after the data root's folder
first_stage, *later_stages = _base_.model.train_cfg.rcnn
model = dict(
    _base_.small_vitdet,
    roi_head=dict(
        _base_.small_vitdet.roi_head,
        bbox_head=[dict(head, **_base_.small_vitdet.roi_head.bbox_head) for head in _base_.model.roi_head.bbox_head],
    ),
    train_cfg=dict(
        _base_.small_vitdet.train_cfg,
        rcnn=[
            dict(first_stage, sampler=dict(first_stage.sampler, **_base_.small_vitdet.train_cfg.rcnn.sampler)),
            *later_stages,
        ],
    ),
)

train_dataloader = dict(_base_.small_train_loader, dataset=dict(pipeline=_base_.small_vitdet_pipeline))
val_dataloader = _base_.small_test_loader
test_dataloader = val_dataloader

max_iters = _base_.small_iters
global_batch_size = _base_.small_train_loader.batch_size
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=_base_.small_optimizer,
    constructor=_base_.optim_wrapper.constructor,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg,
)
# the drops at the same shares of the training
param_scheduler = [
    dict(_base_.warm_up, end=21),
    dict(_base_.param_scheduler[1], milestones=[step * max_iters // _base_.max_iters for step in _base_.drops]),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=50))
