# What ViT-L changes in models/upernet_vit-base.py; a variable only, so that it can stand beside another base.
large_model = dict(
    backbone=dict(arch=dict(embed_dim=1024, depth=24, num_heads=16), drop_path_rate=0.2, out_indices=(7, 11, 15, 23)),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024], channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
