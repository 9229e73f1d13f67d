# RC-MAE, ViT-B/16, 800 epochs on ImageNet-1K, 8 GPUs x 256 images x 2 passes a step, as released.
#
#   tools/dist_train.sh configs/pretrain/rc-mae_vit-base-p16_8xb256-800e_in1k.py 8
#
# With ema_per="micro" the passes of a step count: on more GPUs there are fewer. No published result was found.
_base_ = [
    "../_base_/models/rc-mae_vit-base.py",
    "../_base_/datasets/imagenet_pretrain.py",
    "../_base_/schedules/pretrain_adamw_4096.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
model = dict(data_preprocessor={{_base_.data_preprocessor}})
default_hooks = dict(teacher=dict(type="emae_mm.FollowStudentHook"), export=dict(type="emae_mm.ExportEncoderHook"))
train_dataloader = dict(batch_size=256)
train_cfg = dict(max_epochs=800)
record = dict(task="pretrain", method="RC-MAE", data="ImageNet-1K", epochs=800)
