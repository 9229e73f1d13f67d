# Linear probe of ViT-S/16 on ImageNet-1K: ViT-B's (protocol 5.1). RC-MAE has a ViT-S and publishes no probe of it.
#
#   tools/dist_train.sh configs/classification/linear_vit-small-p16_8xb2048-90e_in1k.py 8 --amp \
#       --pretrained encoder.pth
_base_ = "linear_vit-base-p16_8xb2048-90e_in1k.py"

model = dict(backbone=dict(arch="small"), neck=dict(input_features=384), head=dict(in_channels=384))
