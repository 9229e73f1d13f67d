# Mask R-CNN with FPN, ViT-B/16, COCO, 1024 pixels, large-scale jitter, 100 epochs (184,375 steps of 64 images),
# 8 GPUs x 8 images: the benchmark of Li et al. 2021 as MIMDet released it (protocol 5.3).
#
#   tools/dist_train.sh configs/detection/mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# Published (box AP / mask AP): EMAE 300 epochs 50.6 / 45.0, EMAE 800 epochs 51.4 / 45.7 (EMAE v2 Table III),
# MAE 1600 epochs 50.4 / 44.9 (same table), 50.3 / 44.9 (RC-MAE).
#
# Not stated for EMAE, hence MIMDet's: lr 1.6e-4 and weight decay 0.2; no weight decay on norms, absolute and relative
# positions (biases do decay). Positions start from the checkpoint's, resampled to 64 x 64, and are learned; MIMDet
# recomputes sine-cosine ones for 64 x 64.
_base_ = [
    "../_base_/models/mask-rcnn_vit-base-fpn.py",
    "../_base_/datasets/coco_lsj.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmdet"
pretrained = ""
record = dict(task="coco-maskrcnn-fpn", protocol="li2021-maskrcnn-fpn-100e", data="COCO", metric="box_AP")

max_iters = 184375
optim_wrapper = dict(
    type="AmpOptimWrapper",
    loss_scale="dynamic",
    optimizer=dict(type="AdamW", lr=1.6e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, custom_keys={"pos_embed": dict(decay_mult=0.0), "rel_pos": dict(decay_mult=0.0)}
    ),
)

# warm-up of a quarter epoch (461 steps) times a cosine that counts from the first step and ends at 0
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=461),
    dict(type="CosineAnnealingLR", eta_min=0.0, by_epoch=False, begin=0, end=max_iters, T_max=max_iters),
]

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=18438)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
auto_scale_lr = dict(base_batch_size=64)
global_batch_size = 64

log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1844))
