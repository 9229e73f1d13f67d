# MAE, ViT-B/16, 800 epochs on OpenImages train, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/mae_vit-base-p16_8xb512-800e_openimages.py 8
#
# Published (EMAE v2 Table IX): ViTDet on COCO 49.9 box AP and 44.6 mask AP, UperNet on ADE20K 47.8 mIoU.
_base_ = "mae_vit-base-p16_8xb512-100e_openimages.py"

train_cfg = dict(max_epochs=800)
record = dict(epochs=800)
