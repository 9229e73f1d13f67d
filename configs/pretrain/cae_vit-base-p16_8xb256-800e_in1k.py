# CAE, ViT-B/16, 800 epochs on ImageNet-1K, 8 GPUs x 256 images.
#
#   tools/dist_train.sh configs/pretrain/cae_vit-base-p16_8xb256-800e_in1k.py 8 \
#       --cfg-options tokenizer=dalle_encoder.pth
#
# Published (EMAE v1 Table 1): linear probe 68.3, fine-tuning 83.6.
_base_ = "cae_vit-base-p16_8xb256-300e_in1k.py"

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=True, begin=20, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=800)
record = dict(epochs=800)
