# MAE on the demonstration data, small enough for the ablations: the full-size config with a tiny encoder.
#
#   emae-mm suite ablations_demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = [
    "../mae_vit-base-p16_8xb512-300e_in1k.py",
    "../../_base_/ablation_encoder.py",
    "../../_base_/ablation_pretrain.py",
]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    decoder=_base_.small_decoder,
)

global_batch_size = 16
train_dataloader = dict(
    batch_size=16, num_workers=0, persistent_workers=False, dataset=dict(pipeline=_base_.small_pipeline)
)
optim_wrapper = dict(dtype="float32", optimizer=dict(lr=_base_.small_lr))
param_scheduler = _base_.small_warmup
auto_scale_lr = dict(base_batch_size=16)

train_cfg = dict(max_epochs=3)
record = dict(data="emae-demo", epochs=3)
