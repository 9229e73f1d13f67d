# EMAE, ViT-B/16 at 224: K = 4 disjoint parts, pixel reconstruction and self-consistency with weight 1 each
# (EMAE sections III-B to III-D; protocol 1.1 and 1.2).
model = dict(
    type="emae_mm.EMAE",
    backbone=dict(type="emae_mm.ViTEncoder", arch="base", img_size=224, patch_size=16),
    decoder=dict(decoder_dim=512, depth=8, num_heads=16),
    num_parts=4,
    norm_pix=True,
    reconstruction_weight=1.0,
    consistency_weight=1.0,
    sc_norm="overlap",
)
