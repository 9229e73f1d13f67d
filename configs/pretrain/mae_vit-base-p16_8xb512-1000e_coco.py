# MAE, ViT-B/16, 1000 epochs on COCO train2017, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-1000e_coco.py 8
#
# There is no published result.
_base_ = [
    "../_base_/models/mae_vit-base.py",
    "../_base_/datasets/coco_pretrain.py",
    "../_base_/schedules/pretrain_adamw_4096.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
model = dict(data_preprocessor={{_base_.data_preprocessor}})
default_hooks = dict(export=dict(type="emae_mm.ExportEncoderHook"))
train_cfg = dict(max_epochs=1000)
record = dict(task="pretrain", method="MAE", data="COCO train2017", epochs=1000)
