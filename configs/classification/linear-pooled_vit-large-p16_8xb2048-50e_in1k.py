# Linear probe of ViT-L/16 on ImageNet-1K on the mean of the patch tokens; otherwise as
# linear_vit-large-p16_8xb2048-50e_in1k.py.
#
#   tools/dist_train.sh configs/classification/linear-pooled_vit-large-p16_8xb2048-50e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# The papers of the leaderboard publish no numbers for pooled features.
_base_ = "linear_vit-large-p16_8xb2048-50e_in1k.py"

model = dict(backbone=dict(pool="avg_norm"))
record = dict(protocol="mae-linear-probe-pooled-50e")
