# CAE, ViT-B/16 at 224 (protocol 4), through mmpretrain's implementation: encoder on visible patches, 4 regressor and 4
# decoder blocks, cross-entropy of DALL-E's codes + 2 * MSE to the teacher's latents, LayerScale 0.1.
# Values are those of the release (lxtGH/CAE, scripts/cae_base_800e.sh); where mmpretrain's config has others, both are
# given.
model = dict(
    type="emae_mm.CAE",
    backbone=dict(
        type="mmpretrain.CAEPretrainViT",
        arch="b",
        img_size=224,
        patch_size=16,
        bias="qv_bias",
        layer_scale_init_value=0.1,
        drop_path_rate=0.1,  # mmpretrain: 0
    ),
    neck=dict(
        type="mmpretrain.CAENeck",
        num_classes=8192,
        embed_dims=768,
        num_heads=12,
        regressor_depth=4,
        decoder_depth=4,
        mlp_ratio=4,
        layer_scale_init_value=0.1,
        mask_tokens_num=98,  # mmpretrain: 75
        drop_path_rate=0.1,  # mmpretrain: 0; the release gives the encoder's rate to regressor and decoder, too
    ),
    head=dict(type="mmpretrain.CAEHead", loss=dict(type="mmpretrain.CAELoss", lambd=2)),
    target_generator=dict(type="emae_mm.DALLETokenizer"),
    base_momentum=0.0,  # the teacher is the encoder before its last step
    tokenizer="",  # the launcher puts the variable 'tokenizer' here
)
