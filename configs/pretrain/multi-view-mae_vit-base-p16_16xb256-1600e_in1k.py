# Multi-View MAE, ViT-B/16, 1600 epochs on ImageNet-1K, 16 GPUs x 256 images of two views each (2 nodes of 8).
#
#   NNODES=2 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/multi-view-mae_vit-base-p16_16xb256-1600e_in1k.py 8
#
# Published: linear probe 76.7, fine-tuning 84.3.
_base_ = "multi-view-mae_vit-base-p16_16xb256-800e_in1k.py"

train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
