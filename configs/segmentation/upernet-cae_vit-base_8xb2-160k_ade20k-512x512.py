# UperNet, ViT-B/16, ADE20K, in CAE's settings (protocol 5.5): MAE's with lr 2e-4, the checkpoint's sine-cosine
# positions resampled to 32 x 32 and frozen. LayerScale is the checkpoint's where it has one (CAE), otherwise it starts
# at 1. CAE's own runs use mixed precision, hence --amp.
#
#   tools/dist_train.sh configs/segmentation/upernet-cae_vit-base_8xb2-160k_ade20k-512x512.py 8 --amp \
#       --data-root data/ade/ADEChallengeData2016 --pretrained encoder.pth
#
# Published (mIoU): EMAE 800 epochs 50.8 (EMAE v2 Table VI); CAE 300 epochs 48.1 with lr 3e-4, 800 epochs 49.7 with
# 2e-4, 1600 epochs 50.3 with 1e-4 (CAE's repository). Another rate of theirs, 1e-4, 3e-4 or 4e-4, is one
# override: --cfg-options optim_wrapper.optimizer.lr=1e-4
_base_ = "upernet_vit-base_8xb2-160k_ade20k-512x512.py"

record = dict(task="ade20k-upernet-cae", protocol="cae-upernet-160k")
model = dict(backbone=dict(learn_pos_embed=False))
optim_wrapper = dict(optimizer=dict(lr=2e-4))
