# Fine-tuning of ViT-L/16 on ImageNet-1K as RC-MAE's scripts have it (protocols 2): MAE's ViT-B recipe (100 epochs,
# lr 5e-4 per 256 images, layer decay 0.65) with drop path 0.2, where MAE has 50 epochs, 1e-3 and 0.75. RC-MAE's ViT-B
# is fine-tuned as MAE's: finetune_vit-base-p16_8xb128-100e_in1k.py.
#
#   tools/dist_train.sh configs/classification/finetune-rc-mae_vit-large-p16_8xb128-100e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# Published top-1 (RC-MAE's README): RC-MAE 1600 epochs 86.1, MAE 1600 epochs 85.5.
_base_ = "finetune_vit-base-p16_8xb128-100e_in1k.py"

model = dict(backbone=dict(arch="large", drop_path_rate=0.2), head=dict(in_channels=1024))
record = dict(protocol="rc-mae-finetune-vit-l-100e")
