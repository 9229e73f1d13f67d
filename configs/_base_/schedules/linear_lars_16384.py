# MAE's linear probe (protocol 5.1): LARS, momentum 0.9, no weight decay, lr 0.1 * batch / 256 at a batch of 16384,
# 10 epochs of warm-up, cosine to 0; parameters of one dimension without trust ratio.
# Epochs: override train_cfg.max_epochs; the cosine ends where training does.
global_batch_size = 16384

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(
        type="emae_mm.LARS", lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0, trust_coeff=0.001, always_adapt=True
    ),
    constructor="emae_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(options_1d=dict(always_adapt=False)),
)

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=True, begin=10, convert_to_iter_based=True),
]

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=90, val_interval=10)
auto_scale_lr = dict(base_batch_size=16384)
