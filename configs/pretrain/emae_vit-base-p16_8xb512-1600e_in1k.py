# EMAE, ViT-B/16, 1600 epochs on ImageNet-1K, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/emae_vit-base-p16_8xb512-1600e_in1k.py 8
#
# Published (EMAE v2 Table XIII): linear probe 71.2, fine-tuning 84.2.
_base_ = "emae_vit-base-p16_8xb512-300e_in1k.py"

train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
