# UperNet on a plain ViT-B/16 at 512 pixels in MAE's settings (protocol 5.5): relative position biases in every block,
# starting at zero; learnable absolute positions, resampled to 32 x 32; LayerScale starting at 1; blocks 3, 5, 7 and 11
# at 4, 2, 1 and 1/2 times the resolution; an FCN head on the third map as auxiliary loss.
norm_cfg = dict(type="SyncBN", requires_grad=True)

model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type="emae_mm.DenseViT",
        arch=dict(embed_dim=768, depth=12, num_heads=12),
        img_size=512,
        patch_size=16,
        drop_path_rate=0.1,
        init_values=1.0,
        out_indices=(3, 5, 7, 11),
        rel_pos_bias="per_block",
        use_cls_token=True,
        pretrained="",
    ),
    neck=dict(type="emae_mm.MultiScaleFromStride16", embed_dim=768, norm_cfg=norm_cfg),
    decode_head=dict(
        type="emae_mm.UPerHead",  # same parameters and values as mmsegmentation's, fewer products
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=768,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)
