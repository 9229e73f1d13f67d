# ViTDet's optimiser and schedule (protocol 5.4): AdamW, layer decay, 184,375 steps of 64 images (100 epochs), the
# learning rate divided by 10 twice. The 25-epoch schedule divides every step number by 4, rounded down; its warm-up
# stays.
_base_ = ["../default_runtime.py"]

max_iters = 184375
drops = [163889, 177546]

optim_wrapper = dict(
    type="AmpOptimWrapper",
    loss_scale="dynamic",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    constructor="emae_mm.LayerDecayOptimWrapperConstructor",
    # the channel norms of pyramid and heads do decay, as in detectron2, whose rule knows torch's own norms only
    paramwise_cfg=dict(layer_decay_rate=0.7, no_decay_norms="backbone", no_decay_names=["pos_embed"]),
)

# mmengine reaches the full rate in the last step before `end`, detectron2 in the step after 250 of warm-up
warm_up = dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=251)
param_scheduler = [warm_up, dict(type="MultiStepLR", gamma=0.1, by_epoch=False, milestones=drops)]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=18438)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(base_batch_size=64)
global_batch_size = 64

log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1844))

schedule_25e = dict(
    max_iters=max_iters // 4,
    param_scheduler=[warm_up, dict(param_scheduler[1], milestones=[step // 4 for step in drops])],
    train_cfg=dict(max_iters=max_iters // 4, val_interval=9219),
)
