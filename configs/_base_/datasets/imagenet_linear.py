# ImageNet-1K for linear probes: random resized crop (0.08, 1) bicubic, drawn once as in the MAE release, and flip
# (protocol 5.1).
_base_ = "imagenet_eval.py"

train_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(
        type="emae_mm.RandomResizedCropOnce",
        scale=224,
        crop_ratio_range=(0.08, 1.0),
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(type="mmpretrain.PackInputs"),
]

train_dataloader = dict(
    batch_size=2048,
    num_workers=16,
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
