# ViTDet Mask R-CNN, ViT-B/16, COCO, 1024 pixels, large-scale jitter, 100 epochs (184,375 steps of 64 images), 8 GPUs
# x 8 images: the protocol of Li et al. 2022 as detectron2 released it (protocol 5.4).
#
#   tools/dist_train.sh configs/detection/vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# Published (box AP / mask AP): MAE 1600 epochs 51.6 / 45.9 (detectron2; EMAE v2 Table IV, own runs), EMAE 300 epochs
# 51.8 / 46.1, EMAE 800 epochs 52.5 / 46.7, random start 48.1 / 42.6 (EMAE v2 Table IV); MAE 51.6 / 45.7 in
# mmdetection's re-implementation.
#
# Where this departs from detectron2: docs/detection.md.
_base_ = [
    "../_base_/models/vitdet_mask-rcnn_vit-base.py",
    "../_base_/datasets/coco_lsj_vitdet.py",
    "../_base_/schedules/vitdet_adamw_100e.py",
]

default_scope = "mmdet"
pretrained = ""
record = dict(task="coco-vitdet", protocol="vitdet-100e", data="COCO", metric="box_AP")
