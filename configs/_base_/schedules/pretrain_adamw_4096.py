# MAE's pre-training schedule (protocol 1.4): AdamW (0.9, 0.95), weight decay 0.05 on everything but 1-D parameters,
# lr 1.5e-4 * batch / 256 at a batch of 4096 images, 40 epochs of warm-up, cosine to 0, no clipping.
# Epochs: override train_cfg.max_epochs (and record.epochs); the cosine ends where training does.
global_batch_size = 4096

optim_wrapper = dict(
    type="emae_mm.AutocastOptimWrapper",
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05),
    constructor="emae_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=1.0, no_decay_1d=True),
)

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, begin=40, convert_to_iter_based=True),
]

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300)
auto_scale_lr = dict(base_batch_size=4096)
