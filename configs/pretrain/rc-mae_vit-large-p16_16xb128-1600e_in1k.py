# RC-MAE, ViT-L/16, 1600 epochs on ImageNet-1K, 16 GPUs x 128 images x 2 passes a step (2 nodes of 8).
#
#   NNODES=2 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/rc-mae_vit-large-p16_16xb128-1600e_in1k.py 8
#
# Published: fine-tuning 86.1 (RC-MAE). How the release spreads ViT-L over GPUs is not stated; two passes a step are
# what it has for ViT-B, and with ema_per="micro" they count.
_base_ = "rc-mae_vit-base-p16_8xb256-800e_in1k.py"

model = dict(backbone=dict(arch="large"))
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
