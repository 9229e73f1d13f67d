# Linear probe of ViT-B/16 on ImageNet-1K on the mean of the patch tokens after the final norm instead of the class
# token; otherwise as linear_vit-base-p16_8xb2048-90e_in1k.py. (The MAE release's --global_pool averages before a norm
# that no training ever touches.)
#
#   tools/dist_train.sh configs/classification/linear-pooled_vit-base-p16_8xb2048-90e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# The papers of the leaderboard publish no numbers for pooled features.
_base_ = "linear_vit-base-p16_8xb2048-90e_in1k.py"

model = dict(backbone=dict(pool="avg_norm"))
record = dict(protocol="mae-linear-probe-pooled-90e")
