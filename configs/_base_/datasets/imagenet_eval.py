# ImageNet-1K, validation images: resize 256 bicubic, centre crop 224. Any folder with train/CLASS/* and val/CLASS/*
# works in its place: --data-root DIR (the number of classes is read from it).
data_root = "data/imagenet"

data_preprocessor = dict(
    type="mmpretrain.ClsDataPreprocessor",
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="mmpretrain.ResizeEdge", scale=256, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="mmpretrain.CenterCrop", crop_size=224),
    dict(type="mmpretrain.PackInputs"),
]

test_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(type="emae_mm.ImageFolder", data_root=data_root, data_prefix="val", pipeline=test_pipeline),
)
