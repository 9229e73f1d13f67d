# What the classification configs for 64x64 images have in common; variables only, so that it can stand beside another
# base.
small_test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="mmpretrain.ResizeEdge", scale=64, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="mmpretrain.CenterCrop", crop_size=64),
    dict(type="mmpretrain.PackInputs"),
]
small_loader = dict(num_workers=0, persistent_workers=False)
small_test_loader = dict(batch_size=256, dataset=dict(pipeline=small_test_pipeline), **small_loader)
