# RC-MAE, ViT-B/16, 1600 epochs on ImageNet-1K, 8 GPUs x 256 images x 2 passes a step, as released.
#
#   tools/dist_train.sh configs/pretrain/rc-mae_vit-base-p16_8xb256-1600e_in1k.py 8
#
# Published: fine-tuning 83.6 (RC-MAE); its ablation of the teacher's mask has linear probe 68.4 with the same mask.
_base_ = "rc-mae_vit-base-p16_8xb256-800e_in1k.py"

train_cfg = dict(max_epochs=1600)
record = dict(epochs=1600)
