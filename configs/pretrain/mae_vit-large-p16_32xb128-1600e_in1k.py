# MAE, ViT-L/16, 1600 epochs on ImageNet-1K, 32 GPUs x 128 images (4 nodes of 8; see tools/slurm_train.sh).
#
#   NNODES=4 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/mae_vit-large-p16_32xb128-1600e_in1k.py 8
#
# Published: linear probe 75.6 (EMAE v1 Table 1; the official release reports 76.0), fine-tuning 85.9.
_base_ = "mae_vit-base-p16_8xb512-300e_in1k.py"

model = dict(backbone=dict(arch="large"))
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
