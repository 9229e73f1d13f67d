# Multi-View MAE on a folder of small images (64x64 in 64 patches): the full-size config with a small encoder.
#
#   python tools/train.py configs/pretrain/tiny/multi-view-mae_vit-tiny64_folder.py --data-root DIR
#
# DIR is an ImageNet-style folder (train/<class>/*.jpg; labels are not used). There is no published result.
_base_ = [
    "../multi-view-mae_vit-base-p16_16xb256-800e_in1k.py",
    "../../_base_/tiny_encoder.py",
    "../../_base_/small_pretrain.py",
]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    ),
    decoder=_base_.small_decoder,
    projector=dict(hidden_dim=256, out_dim=32),
)

load, *view, pack = _base_.small_pipeline
two_views = [load, dict(type="mmpretrain.MultiView", num_views=[2], transforms=[view]), pack]

global_batch_size = 32
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False, dataset=dict(pipeline=two_views))
optim_wrapper = dict(dtype="float32", optimizer=dict(lr=_base_.small_lr))
param_scheduler = _base_.small_warmup
auto_scale_lr = dict(base_batch_size=32)

train_cfg = dict(max_epochs=5)
record = dict(data="", epochs=5)  # named after the data root's folder
