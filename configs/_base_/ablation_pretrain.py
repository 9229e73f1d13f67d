# What the small ablations' pre-training configs have in common; variables only, so that it can stand beside another
# base.
small_pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(
        type="mmpretrain.RandomResizedCrop",
        scale=(56, 64),
        crop_ratio_range=(0.2, 1.0),
        backend="pillow",
        interpolation="bicubic",
    ),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(type="mmpretrain.PackInputs"),
]
small_decoder = dict(decoder_dim=48, depth=1, num_heads=2)
small_lr = 1e-3
# 40 of the paper's epochs are 0.4 of these
small_warmup = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=0.4, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, begin=0.4, convert_to_iter_based=True),
]
