# What every run has: our registry scope, hooks, logging and the seed.
custom_imports = dict(imports=["emae_mm.registry"], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    checkpoint=dict(type="emae_mm.PruningCheckpointHook", interval=1, max_keep_ckpts=2),
    finite=dict(type="emae_mm.NonFiniteLossHook"),
    record=dict(type="emae_mm.RecordHook"),
)

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl")
)
randomness = dict(seed=0)
visualizer = dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")])
log_level = "INFO"
