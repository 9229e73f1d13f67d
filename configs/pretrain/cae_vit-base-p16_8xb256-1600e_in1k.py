# CAE, ViT-B/16, 1600 epochs on ImageNet-1K, 8 GPUs x 256 images.
#
#   tools/dist_train.sh configs/pretrain/cae_vit-base-p16_8xb256-1600e_in1k.py 8 \
#       --cfg-options tokenizer=dalle_encoder.pth
#
# Published (Multi-View MAE): linear probe 71.4, fine-tuning 83.9; (EMAE v1 Table 2) COCO box AP 50.0, mask AP 44.0.
_base_ = "cae_vit-base-p16_8xb256-300e_in1k.py"

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=40, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=40, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
