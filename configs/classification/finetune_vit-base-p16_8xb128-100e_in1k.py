# Fine-tuning of ViT-B/16 on ImageNet-1K as in the MAE release (protocol 5.2), 100 epochs, 8 GPUs x 128 images.
#
#   tools/dist_train.sh configs/classification/finetune_vit-base-p16_8xb128-100e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# Published top-1 (EMAE v1, Table 1): MAE 1600 epochs 83.6, MAE 300 epochs 82.9, EMAE 300 epochs 83.8.
_base_ = [
    "../_base_/datasets/imagenet_finetune.py",
    "../_base_/schedules/finetune_adamw_1024.py",
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
        pool="avg",
        drop_path_rate=0.1,
        learn_pos_embed=True,
        pretrained="",
    ),
    neck=None,
    head=dict(
        type="mmpretrain.LinearClsHead",
        num_classes=1000,
        in_channels=768,
        loss=dict(type="mmpretrain.LabelSmoothLoss", label_smooth_val=0.1, mode="original"),
        init_cfg=dict(type="TruncNormal", layer="Linear", std=2e-5),
    ),
    # one of the two for every batch, each with probability 0.5
    train_cfg=dict(
        augments=[
            dict(type="mmpretrain.Mixup", alpha=0.8),
            dict(type="mmpretrain.CutMix", alpha=1.0),
        ]
    ),
)

record = dict(task="imagenet-finetune", protocol="mae-finetune-100e", data="ImageNet-1K", metric="top1")
