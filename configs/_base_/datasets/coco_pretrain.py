# The images of COCO train2017, without labels, augmented as ImageNet's.
_base_ = "imagenet_pretrain.py"

data_root = "data/coco"
# 118 287 images are 28.9 batches of 4096: the last batch of an epoch is kept, so that N epochs see every image N times
# (4000 epochs: 116 000 steps). Dropping it would leave out 3 % of the training.
train_dataloader = dict(drop_last=False, dataset=dict(data_root=data_root, data_prefix="train2017"))
