# What every run has: our registry scope, hooks, logging and the seed.
custom_imports = dict(imports=["emae_mm.registry"], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    checkpoint=dict(type="emae_mm.PruningCheckpointHook", interval=1, max_keep_ckpts=2),
    gradient_norm=dict(type="emae_mm.GradientNormHook"),
    throughput=dict(type="emae_mm.ThroughputHook"),
    finite=dict(type="emae_mm.NonFiniteLossHook"),
    record=dict(type="emae_mm.RecordHook"),
)

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl")
)
randomness = dict(seed=0)
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")])
log_processor = dict(type="emae_mm.TrainingLogProcessor", window_size=50)
log_level = "INFO"
# Pre-training only (docs/watching.md): a picture of what the model paints, every 20 epochs; None for none. For a k-NN
# probe every 10 epochs set knn_probe = dict(interval=10).
reconstruction_panel = dict(interval=20)
# Transfers only (docs/pictures.md): pictures of the last validation, beside the record; None for none.
pictures = dict(images=4, threshold=0.5)
