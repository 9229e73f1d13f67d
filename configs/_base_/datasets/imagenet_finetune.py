# ImageNet-1K for end-to-end fine-tuning (protocol 5.2): random resized crop (0.08, 1) bicubic, flip, RandAugment
# m9-mstd0.5-inc1, random erasing 0.25 with pixel noise. Images, and hence the augmentations' colours, are BGR.
_base_ = "imagenet_eval.py"

train_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(
        type="mmpretrain.RandomResizedCrop",
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(
        type="mmpretrain.RandAugment",
        policies="timm_increasing",
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation="bicubic"),
    ),
    dict(type="emae_mm.RandomErasing", prob=0.25, mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395]),
    dict(type="mmpretrain.PackInputs"),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="emae_mm.ImageFolder", data_root=_base_.data_root, data_prefix="train", pipeline=train_pipeline),
)

val_dataloader = _base_.test_dataloader
val_evaluator = dict(type="mmpretrain.Accuracy", topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
