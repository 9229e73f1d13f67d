# EMAE, ViT-L/16, 800 epochs on ImageNet-1K, 32 GPUs x 128 images (4 nodes of 8; see tools/slurm_train.sh).
#
#   NNODES=4 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/emae_vit-large-p16_32xb128-800e_in1k.py 8
#
# Published (EMAE v1 Table 1): linear probe 76.7, fine-tuning 86.3.
_base_ = "emae_vit-base-p16_8xb512-300e_in1k.py"

model = dict(backbone=dict(arch="large"))
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=800)
record = dict(epochs=800)
