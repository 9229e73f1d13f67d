# MAE, ViT-B/16, 800 epochs on ImageNet-1K, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-800e_in1k.py 8
#
# Published (EMAE v1 Table 1): linear probe 64.4, fine-tuning 83.4.
_base_ = "mae_vit-base-p16_8xb512-300e_in1k.py"

train_cfg = dict(max_epochs=800)
record = dict(epochs=800)
