# Linear probe of ViT-L/16 on ImageNet-1K as in the MAE release (protocol 5.1): ViT-B's with 50 epochs.
#
#   tools/dist_train.sh configs/classification/linear_vit-large-p16_8xb2048-50e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# Published top-1 (EMAE v2, Table II): EMAE 800 epochs 76.7, MAE 1600 epochs 75.6 (75.8 and 76.0 in the MAE release).
_base_ = "linear_vit-base-p16_8xb2048-90e_in1k.py"

model = dict(backbone=dict(arch="large"), neck=dict(input_features=1024), head=dict(in_channels=1024))
train_cfg = dict(max_epochs=50)
record = dict(protocol="mae-linear-probe-50e")
