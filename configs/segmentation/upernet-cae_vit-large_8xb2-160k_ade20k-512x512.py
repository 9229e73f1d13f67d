# UperNet, ViT-L/16, ADE20K, in CAE's settings for it (protocol 5.5): lr 5e-5, layer decay 0.95, drop path 0.15;
# otherwise as upernet-cae_vit-base_8xb2-160k_ade20k-512x512.py.
#
#   tools/dist_train.sh configs/segmentation/upernet-cae_vit-large_8xb2-160k_ade20k-512x512.py 8 --amp \
#       --data-root data/ade/ADEChallengeData2016 --pretrained encoder.pth
#
# Published (mIoU): CAE 1600 epochs 54.6 (CAE's repository).
_base_ = ["upernet-cae_vit-base_8xb2-160k_ade20k-512x512.py", "../_base_/models/upernet_vit-large.py"]

large = _base_.large_model
model = dict(large, backbone=dict(large.backbone, drop_path_rate=0.15))
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=dict(layer_decay_rate=0.95))
