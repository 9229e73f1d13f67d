# Fine-tuning of ViT-L/16 on ImageNet-1K as in the MAE release (protocol 5.2), 50 epochs, 8 GPUs x 128 images: lr 1e-3
# per 256 images, layer decay 0.75, drop path 0.2; otherwise ViT-B's.
#
#   tools/dist_train.sh configs/classification/finetune_vit-large-p16_8xb128-50e_in1k.py 8 --amp \
#       --pretrained encoder.pth
#
# Published top-1 (EMAE v2, Table II): EMAE 800 epochs 86.3, MAE 1600 epochs 85.9.
_base_ = "finetune_vit-base-p16_8xb128-100e_in1k.py"

lr = 1e-3 * 1024 / 256
model = dict(backbone=dict(arch="large", drop_path_rate=0.2), head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=lr), paramwise_cfg=dict(layer_decay_rate=0.75))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=1e-6 / lr,
        by_epoch=True,
        begin=5,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=50)
record = dict(protocol="mae-finetune-50e")
