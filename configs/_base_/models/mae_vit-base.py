# MAE, ViT-B/16 at 224: one random 75 % mask, pixel reconstruction (protocol 4).
model = dict(
    type="emae_mm.MAE",
    backbone=dict(type="emae_mm.ViTEncoder", arch="base", img_size=224, patch_size=16),
    decoder=dict(decoder_dim=512, depth=8, num_heads=16),
    mask_ratio=0.75,
    norm_pix=True,
)
