# MAE, ViT-B/16, 300 epochs on ImageNet-1K, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-300e_in1k.py 8
#
# Published (EMAE v1 Table 1): linear probe 61.5, fine-tuning 82.9.
_base_ = [
    "../_base_/models/mae_vit-base.py",
    "../_base_/datasets/imagenet_pretrain.py",
    "../_base_/schedules/pretrain_adamw_4096.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
model = dict(data_preprocessor={{_base_.data_preprocessor}})
default_hooks = dict(export=dict(type="emae_mm.ExportEncoderHook"))
record = dict(task="pretrain", method="MAE", data="ImageNet-1K", epochs=300)
