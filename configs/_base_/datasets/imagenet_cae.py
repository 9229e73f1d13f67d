# ImageNet-1K without labels for CAE: flip, one random crop (0.08, 1) at 224 (bicubic) for the encoder and at 112
# (Lanczos) for the tokenizer, and a mask of blocks with 98 of 196 patches hidden.
# Any folder tree of images works in its place: --data-root DIR.
data_root = "data/imagenet"

data_preprocessor = dict(
    type="mmpretrain.TwoNormDataPreprocessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    # DALL-E's map_pixels, 0.8 * x / 255 + 0.1, written as (x - mean) / std
    second_mean=[-31.875, -31.875, -31.875],
    second_std=[318.75, 318.75, 318.75],
    to_rgb=True,
)

train_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(
        # mmpretrain resizes with OpenCV, without a filter against aliasing; the release with Pillow
        type="emae_mm.RandomResizedCropTwoSizes",
        scale=224,
        second_scale=112,
        crop_ratio_range=(0.08, 1.0),
        interpolation="bicubic",
        second_interpolation="lanczos",
    ),
    dict(
        type="emae_mm.BlockMask",  # mmpretrain's generator never hides the last row and column
        input_size=(14, 14),
        num_masking_patches=98,  # mmpretrain: 75
        min_num_patches=16,
    ),
    dict(type="mmpretrain.PackInputs"),
]

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,  # mmpretrain: False
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="emae_mm.ImageFolder", data_root=data_root, data_prefix="train", with_label=False, pipeline=train_pipeline
    ),
)
