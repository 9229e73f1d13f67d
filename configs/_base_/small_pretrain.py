# What the pre-training configs for small images have in common; variables only, so that it can stand beside another
# base. Images of 64x64, decoded and augmented as at full size.
small_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(
        type="mmpretrain.RandomResizedCrop",
        scale=64,
        crop_ratio_range=(0.2, 1.0),
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(type="mmpretrain.PackInputs"),
]
small_decoder = dict(decoder_dim=64, depth=1, num_heads=4)
# So few images need many small steps: at the batches of 16 and 32 used here, lr 1.5e-4 * batch / 256 would hardly move
# the model, and 2e-3 at a batch of 64 left EMAE's features worse than random ones.
small_lr = 1e-3
small_warmup = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, begin=1, convert_to_iter_based=True),
]
