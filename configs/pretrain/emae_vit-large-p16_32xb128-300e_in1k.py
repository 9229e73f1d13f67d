# EMAE, ViT-L/16, 300 epochs on ImageNet-1K, 32 GPUs x 128 images (4 nodes of 8; see tools/slurm_train.sh).
#
#   NNODES=4 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/emae_vit-large-p16_32xb128-300e_in1k.py 8
#
# Timing only, there is no accuracy: published are 23.75 hours of pre-training on A100 GPUs (EMAE v2 Table I).
_base_ = "emae_vit-large-p16_32xb128-800e_in1k.py"

train_cfg = dict(max_epochs=300)
record = dict(epochs=300)
