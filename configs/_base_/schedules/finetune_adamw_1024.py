# MAE's fine-tuning of ViT-B (protocol 5.2): AdamW (0.9, 0.999), lr 5e-4 * batch / 256 at a batch of 1024, layer decay
# 0.65, weight decay 0.05 (none on 1-D parameters, class token and positions), 5 epochs of warm-up, cosine to 1e-6
# (times the layer's scale).
# Epochs: override train_cfg.max_epochs; the cosine ends where training does.
global_batch_size = 1024

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4 * 1024 / 256, betas=(0.9, 0.999), weight_decay=0.05),
    constructor="emae_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.65, no_decay_1d=True, no_decay_names=["cls_token", "pos_embed"]),
)

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=1e-6 / (5e-4 * 1024 / 256),
        by_epoch=True,
        begin=5,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=5)
auto_scale_lr = dict(base_batch_size=1024)
