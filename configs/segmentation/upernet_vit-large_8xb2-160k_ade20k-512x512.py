# UperNet, ViT-L/16, ADE20K: upernet_vit-base_8xb2-160k_ade20k-512x512.py with what differs for ViT-L in the one public
# file there is, CAE's copy of MAE's settings (protocol 5.5): lr 4e-4, drop path 0.2, blocks 7, 11, 15 and 23, heads of
# 1024 channels; layer decay 0.65 as with ViT-B. (That file trains in FP16 with frozen positions; here both are as with
# ViT-B.)
#
#   tools/dist_train.sh configs/segmentation/upernet_vit-large_8xb2-160k_ade20k-512x512.py 8 \
#       --data-root data/ade/ADEChallengeData2016 --pretrained encoder.pth
#
# The papers of the leaderboard publish no ViT-L number for these settings.
_base_ = ["upernet_vit-base_8xb2-160k_ade20k-512x512.py", "../_base_/models/upernet_vit-large.py"]

model = _base_.large_model
optim_wrapper = dict(optimizer=dict(lr=4e-4))
