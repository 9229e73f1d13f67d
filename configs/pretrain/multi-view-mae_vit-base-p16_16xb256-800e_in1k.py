# Multi-View MAE, ViT-B/16, 800 epochs on ImageNet-1K, 16 GPUs x 256 images of two views each (2 nodes of 8).
#
#   NNODES=2 NODE_RANK=... MASTER_ADDR=... \
#       tools/dist_train.sh configs/pretrain/multi-view-mae_vit-base-p16_16xb256-800e_in1k.py 8
#
# Published: fine-tuning 83.2. Optimiser, batch and schedule are not stated: MAE's, at 4096 images (8192 views).
# Negatives are the images of one pass: with fewer GPUs, whose passes are accumulated, there are fewer.
_base_ = [
    "../_base_/models/multi-view-mae_vit-base.py",
    "../_base_/datasets/imagenet_pretrain_two_views.py",
    "../_base_/schedules/pretrain_adamw_4096.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
model = dict(data_preprocessor={{_base_.data_preprocessor}})
default_hooks = dict(export=dict(type="emae_mm.ExportEncoderHook"))
train_cfg = dict(max_epochs=800)
record = dict(task="pretrain", method="Multi-View MAE", data="ImageNet-1K", epochs=800)
