# What ViTDet changes in a detector for ViT-L/16 (protocol 5.4). In a child config: model = _base_.vit_large
vit_large = dict(
    backbone=dict(
        arch=dict(embed_dim=1024, depth=24, num_heads=16),
        drop_path_rate=0.4,
        out_indices=(23,),
        global_blocks=(5, 11, 17, 23),
    ),
    neck=dict(embed_dim=1024),
)
