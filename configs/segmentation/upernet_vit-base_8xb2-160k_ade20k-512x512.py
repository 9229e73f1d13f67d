# UperNet, ViT-B/16, ADE20K, 512 x 512, 160,000 steps of 16 images, 8 GPUs x 2 images, in MAE's settings
# (protocol 5.5); single scale, sliding windows of 512 every 341 pixels.
#
#   tools/dist_train.sh configs/segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512.py 8 \
#       --data-root data/ade/ADEChallengeData2016 --pretrained encoder.pth
#
# Published (mIoU): EMAE 300 epochs 48.4, EMAE 800 epochs 49.3, MAE 1600 epochs 48.1 (EMAE v2 Table VI; 48.13 in
# mmsegmentation).
#
# FP32, as the published runs were: their 'amp' configs never switch mixed precision on. '--amp' does.
# Position embeddings and the class token decay, as they did in the published runs.
_base_ = [
    "../_base_/models/upernet_vit-base.py",
    "../_base_/datasets/ade20k_512.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmseg"
custom_imports = dict(imports=["emae_mm.registry", "emae_mm.models.uper_head"], allow_failed_imports=False)
pretrained = ""
record = dict(task="ade20k-upernet", protocol="mae-upernet-160k", data="ADE20K", metric="mIoU")

max_iters = 160000
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    constructor="emae_mm.LayerDecayOptimWrapperConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.65, no_decay_1d=True),
)

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=max_iters),
]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=16000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
global_batch_size = 16  # of an optimiser step, on any number of GPUs
auto_scale_lr = dict(base_batch_size=16)

log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=16000))
