# Linear probe of ViT-B/16 on ImageNet-1K as in the MAE release (protocol 5.1), 90 epochs, 8 GPUs x 2048 images.
#
#   tools/dist_train.sh configs/classification/linear_vit-base-p16_8xb2048-90e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# Published top-1 (EMAE v1, Table 1): MAE 1600 epochs 67.8, MAE 300 epochs 61.5, EMAE 300 epochs 68.2.
_base_ = [
    "../_base_/datasets/imagenet_linear.py",
    "../_base_/schedules/linear_lars_16384.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
pretrained = ""

model = dict(
    type="mmpretrain.ImageClassifier",
    data_preprocessor={{_base_.data_preprocessor}},
    backbone=dict(
        type="emae_mm.ViTForClassification",
        arch="base",
        img_size=224,
        patch_size=16,
        pool="cls",
        frozen=True,
        pretrained="",
    ),
    neck=dict(type="mmpretrain.ClsBatchNormNeck", input_features=768, affine=False, eps=1e-6),
    head=dict(
        type="mmpretrain.LinearClsHead",
        num_classes=1000,
        in_channels=768,
        loss=dict(type="mmpretrain.CrossEntropyLoss"),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=0.01),
    ),
)

# without it each process keeps the batch-norm statistics of its own images
default_hooks = dict(sync_buffers=dict(type="SyncBuffersHook"))
record = dict(task="imagenet-linear", protocol="mae-linear-probe-90e", data="ImageNet-1K", metric="top1")
