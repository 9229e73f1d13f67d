# Fine-tuning on a folder of small images (train/CLASS/*, val/CLASS/*), resized to 64x64.
#
#   python tools/train.py configs/classification/tiny/finetune_vit-tiny64_folder.py --data-root DIR \
#       --pretrained encoder.pth
#
# There is no published result; for other data than imagenet_tiny add record.data=NAME, the name in the leaderboard.
_base_ = ["../../_base_/small_finetune.py", "../../_base_/tiny_encoder.py"]

load, crop, *augmentations = _base_.train_pipeline
train_dataloader = dict(dataset=dict(pipeline=[load, dict(crop, scale=_base_.img_size), *augmentations]))
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    head=dict(in_channels=_base_.encoder_arch["embed_dim"]),
)
record = dict(protocol="tiny64-finetune-5e", data="")  # named after the data root's folder
