# CAE, ViT-B/16, 300 epochs on ImageNet-1K, 8 GPUs x 256 images.
#
#   tools/dist_train.sh configs/pretrain/cae_vit-base-p16_8xb256-300e_in1k.py 8 \
#       --cfg-options tokenizer=dalle_encoder.pth
#
# The tokenizer's weights are DALL-E's; without them the run stops and says where they come from. The encoder has
# LayerScale: transfer configs need --cfg-options model.backbone.init_values=0.1.
# The papers of the leaderboard publish no result of this run.
_base_ = [
    "../_base_/models/cae_vit-base.py",
    "../_base_/datasets/imagenet_cae.py",
    "../_base_/schedules/pretrain_cae_adamw_2048.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
tokenizer = ""
model = dict(data_preprocessor={{_base_.data_preprocessor}})
default_hooks = dict(export=dict(type="emae_mm.ExportEncoderHook"), teacher=dict(type="emae_mm.TeacherBeforeStepHook"))
record = dict(task="pretrain", method="CAE", data="ImageNet-1K", epochs=300)
