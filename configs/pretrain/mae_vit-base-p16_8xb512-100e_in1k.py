# MAE, ViT-B/16, 100 epochs on ImageNet-1K, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-100e_in1k.py 8
#
# Published (EMAE v2 Table XII, its ablations): linear probe 54.8.
_base_ = "mae_vit-base-p16_8xb512-300e_in1k.py"

train_cfg = dict(max_epochs=100)
record = dict(epochs=100)
