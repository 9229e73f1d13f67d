# ViTDet Cascade Mask R-CNN, ViT-L/16, 25 epochs (46,093 steps of 64 images): the 100-epoch protocol with every step
# number of its schedule divided by 4, rounded down (drops at 40,972 and 44,386); the warm-up stays.
#
#   tools/dist_train.sh configs/detection/vitdet_cascade-mask-rcnn_vit-large_8xb8-lsj-25e_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# For quick comparisons; there is no published result.
_base_ = ["./vitdet_cascade-mask-rcnn_vit-large_8xb8-lsj-100e_coco.py"]

record = dict(protocol="vitdet-cascade-25e")
max_iters = _base_.schedule_25e.max_iters
param_scheduler = _base_.schedule_25e.param_scheduler
train_cfg = _base_.schedule_25e.train_cfg
