# EMAE, ViT-B/16, 200 epochs on ImageNet-1K, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/emae_vit-base-p16_8xb512-200e_in1k.py 8
#
# Published (EMAE v2 Table XII, its ablations): linear probe 65.0.
_base_ = "emae_vit-base-p16_8xb512-300e_in1k.py"

train_cfg = dict(max_epochs=200)
record = dict(epochs=200)
