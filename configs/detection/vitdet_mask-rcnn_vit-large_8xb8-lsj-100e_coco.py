# ViTDet Mask R-CNN, ViT-L/16: as with ViT-B, but for layer decay 0.8, drop path 0.4 and global attention in
# blocks 5, 11, 17 and 23 (protocol 5.4).
#
#   tools/dist_train.sh configs/detection/vitdet_mask-rcnn_vit-large_8xb8-lsj-100e_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# Published (box AP / mask AP): MAE 1600 epochs 55.5 / 49.2 (detectron2). EMAE v2 compares in its Table V, whose numbers
# are missing from the sources at hand.
_base_ = ["./vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco.py", "../_base_/models/vitdet_vit-large.py"]

model = _base_.vit_large
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.8))
