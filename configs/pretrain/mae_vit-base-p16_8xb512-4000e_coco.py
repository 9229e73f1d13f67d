# MAE, ViT-B/16, 4000 epochs on COCO train2017, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-4000e_coco.py 8
#
# Published (EMAE v2 Table VIII): ViTDet on COCO 50.1 box AP and 44.6 mask AP, UperNet on ADE20K 45.9 mIoU.
#
# 4000 epochs of 118 287 images are 115 500 steps of 4096 images, here 116 000, since an epoch's last batch is smaller.
# R-MAE's configuration of MAE on COCO takes 144 000 steps with 12 000 of warm-up for "4000 epochs". For as many:
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-4000e_coco.py 8 \
#       --cfg-options train_cfg.max_epochs=4966 param_scheduler.0.end=414 param_scheduler.1.begin=414
_base_ = "mae_vit-base-p16_8xb512-1000e_coco.py"

train_cfg = dict(max_epochs=4000)
record = dict(epochs=4000)
