# Mask R-CNN with FPN, ViT-B/16, with the one alternative learning rate and weight decay of protocol 5.3: EMAE's own are
# lost to us, and these are plausible ones. Where it is used, every method is to be trained with it.
#
#   tools/dist_train.sh configs/detection/mask-rcnn_vit-base-fpn_8xb8-lsj-100e-lr8e-5-wd0.1_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# There is no published result known to belong to it.
_base_ = ["./mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py"]

record = dict(protocol="li2021-maskrcnn-fpn-100e, lr 8e-5, weight decay 0.1")
optim_wrapper = dict(optimizer=dict(lr=8e-5, weight_decay=0.1))
