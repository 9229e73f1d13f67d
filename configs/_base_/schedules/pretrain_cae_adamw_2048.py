# CAE's pre-training schedule (protocol 4): AdamW (0.9, 0.999), weight decay 0.05 on everything but 1-D parameters,
# lr 1.5e-3 at a batch of 2048 images, gradient norm clipped to 3, warm-up from 0, cosine to 1e-5.
# Warm-up is 10, 20 or 40 epochs of 300, 800 or 1600: override 'end' and 'begin' together with train_cfg.max_epochs.
global_batch_size = 2048

optim_wrapper = dict(
    type="emae_mm.AutocastOptimWrapper",  # mmpretrain and the release: float16 with a loss scaler
    dtype="bfloat16",
    optimizer=dict(type="AdamW", lr=1.5e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=3.0),
    constructor="emae_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=1.0, no_decay_1d=True),
)

param_scheduler = [
    # mmpretrain: start_factor 1e-4
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=10, convert_to_iter_based=True),
]

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=300)
auto_scale_lr = dict(base_batch_size=2048)
