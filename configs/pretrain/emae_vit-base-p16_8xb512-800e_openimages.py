# EMAE, ViT-B/16, 800 epochs on OpenImages train, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/emae_vit-base-p16_8xb512-800e_openimages.py 8
#
# Published (EMAE v2 Table IX): ViTDet on COCO 50.8 box AP and 45.3 mask AP, UperNet on ADE20K 49.3 mIoU.
_base_ = "emae_vit-base-p16_8xb512-100e_openimages.py"

train_cfg = dict(max_epochs=800)
record = dict(epochs=800)
