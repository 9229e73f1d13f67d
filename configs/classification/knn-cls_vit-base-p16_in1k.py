# k-NN of ViT-B/16's class token on ImageNet-1K, the feature MAE's linear probe uses; otherwise as
# knn_vit-base-p16_in1k.py.
#
#   tools/dist_test.sh configs/classification/knn-cls_vit-base-p16_in1k.py 8 --pretrained encoder.pth
_base_ = "knn_vit-base-p16_in1k.py"

model = dict(backbone=dict(pool="cls"))
record = dict(protocol="knn-cls-cosine-k20")
