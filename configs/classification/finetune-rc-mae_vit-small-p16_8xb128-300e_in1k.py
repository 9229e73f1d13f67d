# Fine-tuning of ViT-S/16 on ImageNet-1K as RC-MAE's released script has it (protocols 2): 300 epochs, otherwise as
# finetune-rc-mae_vit-small-p16_8xb128-200e_in1k.py.
#
#   tools/dist_train.sh configs/classification/finetune-rc-mae_vit-small-p16_8xb128-300e_in1k.py 8 --amp \
#       --pretrained encoder.pth
_base_ = "finetune-rc-mae_vit-small-p16_8xb128-200e_in1k.py"

train_cfg = dict(max_epochs=300)
record = dict(protocol="rc-mae-finetune-vit-s-300e")
