# ViTDet Cascade Mask R-CNN, ViT-B/16, COCO, 100 epochs: as ViTDet Mask R-CNN, with three box heads for IoU 0.5, 0.6 and
# 0.7, one after the other, and one mask head (protocol 5.4).
#
#   tools/dist_train.sh configs/detection/vitdet_cascade-mask-rcnn_vit-base_8xb8-lsj-100e_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# Published (box AP / mask AP): MAE 1600 epochs 54.0 / 46.7 (detectron2; EMAE v2 Table IV), EMAE 300 epochs 54.3 / 46.9,
# EMAE 800 epochs 54.8 / 47.6 (EMAE v2 Table IV).
#
# The cascade is detectron2's, not mmdetection's: docs/detection.md.
_base_ = [
    "../_base_/models/vitdet_cascade-mask-rcnn_vit-base.py",
    "../_base_/datasets/coco_lsj_vitdet.py",
    "../_base_/schedules/vitdet_adamw_100e.py",
]

custom_imports = dict(imports=["emae_mm.registry", "emae_mm.models.cascade"], allow_failed_imports=False)
default_scope = "mmdet"
pretrained = ""
record = dict(task="coco-vitdet-cascade", protocol="vitdet-cascade-100e", data="COCO", metric="box_AP")
