# ImageNet-1K without labels: random resized crop (0.2, 1) bicubic and flip, as MAE (protocol 1.4).
# Any folder tree of images works in its place: --data-root DIR.
data_root = "data/imagenet"

data_preprocessor = dict(
    type="emae_mm.ImagePreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)

# Decoding, crop and resizing in one step, twice as fast or more (docs/data-loading.md). It draws the crops that
# mmpretrain's RandomResizedCrop (Pillow, bicubic) draws; exact=True in it gives that one's very pixels.
train_pipeline = [
    dict(
        type="emae_mm.LoadImageRandomResizedCrop",
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        on_broken="skip",
        max_broken=100,
    ),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(type="mmpretrain.PackInputs"),
]

train_dataloader = dict(
    batch_size=512,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="emae_mm.ImageFolder", data_root=data_root, data_prefix="train", with_label=False, pipeline=train_pipeline
    ),
)
