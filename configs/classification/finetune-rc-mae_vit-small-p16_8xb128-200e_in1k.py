# Fine-tuning of ViT-S/16 on ImageNet-1K after RC-MAE (protocols 2): 200 epochs, layer decay 0.75; otherwise as ViT-B.
#
#   tools/dist_train.sh configs/classification/finetune-rc-mae_vit-small-p16_8xb128-200e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# Published top-1 (RC-MAE's README, which does not say whether after 200 or 300 epochs): RC-MAE 1600 epochs 82.0,
# MAE 1600 epochs 81.8.
_base_ = "finetune_vit-base-p16_8xb128-100e_in1k.py"

model = dict(backbone=dict(arch="small"), head=dict(in_channels=384))
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75))
train_cfg = dict(max_epochs=200)
record = dict(protocol="rc-mae-finetune-vit-s-200e")
