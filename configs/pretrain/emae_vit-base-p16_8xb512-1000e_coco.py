# EMAE, ViT-B/16, 1000 epochs on COCO train2017, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/emae_vit-base-p16_8xb512-1000e_coco.py 8
#
# Published (EMAE v2 Table VIII): ViTDet on COCO 50.0 box AP and 44.5 mask AP, UperNet on ADE20K 46.6 mIoU.
_base_ = [
    "../_base_/models/emae_vit-base.py",
    "../_base_/datasets/coco_pretrain.py",
    "../_base_/schedules/pretrain_adamw_4096.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
model = dict(data_preprocessor={{_base_.data_preprocessor}})
default_hooks = dict(export=dict(type="emae_mm.ExportEncoderHook"))
train_cfg = dict(max_epochs=1000)
record = dict(task="pretrain", method="EMAE", data="COCO train2017", epochs=1000)
