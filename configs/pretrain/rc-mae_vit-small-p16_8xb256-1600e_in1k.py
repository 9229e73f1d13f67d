# RC-MAE, ViT-S/16 with a decoder of 4 blocks of width 256, 1600 epochs on ImageNet-1K, 8 GPUs x 256 images x 2 passes.
#
#   tools/dist_train.sh configs/pretrain/rc-mae_vit-small-p16_8xb256-1600e_in1k.py 8
#
# Published: fine-tuning 82.0 (RC-MAE).
_base_ = "rc-mae_vit-base-p16_8xb256-800e_in1k.py"

# heads of the decoder are not stated: 8, of width 32 as in ViT-B's
model = dict(backbone=dict(arch="small"), decoder=dict(decoder_dim=256, depth=4, num_heads=8))
train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
