# k-NN of ViT-L/16's class token on ImageNet-1K; otherwise as knn-cls_vit-base-p16_in1k.py.
#
#   tools/dist_test.sh configs/classification/knn-cls_vit-large-p16_in1k.py 8 --pretrained encoder.pth
_base_ = "knn-cls_vit-base-p16_in1k.py"

model = dict(backbone=dict(arch="large"))
