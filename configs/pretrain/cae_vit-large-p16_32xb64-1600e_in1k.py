# CAE, ViT-L/16, 1600 epochs on ImageNet-1K, 32 GPUs x 64 images (4 nodes of 8; see tools/slurm_train.sh).
#
#   NNODES=4 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/cae_vit-large-p16_32xb64-1600e_in1k.py 8 \
#       --cfg-options tokenizer=dalle_encoder.pth
#
# LayerScale 1e-5 (transfer configs: model.backbone.init_values=1e-5); regressor and decoder of the encoder's width. The
# release's scripts/cae_large_1600e.sh means that, too, but a missing backslash cuts its last three options off: as it
# stands it runs a decoder of width 768 behind a projection, which mmpretrain does not have. The third option cut off,
# BEiT's scaled initialisation, is not in mmpretrain either; this config starts from Xavier, like ViT-B.
# The papers of the leaderboard publish no result of this run.
_base_ = "cae_vit-base-p16_8xb256-1600e_in1k.py"

model = dict(
    backbone=dict(arch="l", layer_scale_init_value=1e-5),
    neck=dict(embed_dims=1024, num_heads=16, layer_scale_init_value=1e-5),
)
train_dataloader = dict(batch_size=64)
