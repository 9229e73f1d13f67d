# ImageNet-1K without labels, two crops of each image: random resized crop (0.2, 1) bicubic and flip, no colour or blur
# (protocol 3). Any folder tree of images works in its place: --data-root DIR.
_base_ = "imagenet_pretrain.py"

# One decoded image, cropped twice; the fast one-step loader would decode it for each view.
view = [
    dict(
        type="mmpretrain.RandomResizedCrop",
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
]

train_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(type="mmpretrain.MultiView", num_views=[2], transforms=[view]),
    dict(type="mmpretrain.PackInputs"),
]

train_dataloader = dict(batch_size=256, dataset=dict(pipeline=train_pipeline))
