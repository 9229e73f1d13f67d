# k-NN of ViT-L/16 features on ImageNet-1K; otherwise as knn_vit-base-p16_in1k.py.
#
#   tools/dist_test.sh configs/classification/knn_vit-large-p16_in1k.py 8 --pretrained encoder.pth
_base_ = "knn_vit-base-p16_in1k.py"

model = dict(backbone=dict(arch="large"))
