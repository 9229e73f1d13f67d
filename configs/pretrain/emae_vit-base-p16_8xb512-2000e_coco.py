# EMAE, ViT-B/16, 2000 epochs on COCO train2017, 8 GPUs x 512 images.
#
#   tools/dist_train.sh configs/pretrain/emae_vit-base-p16_8xb512-2000e_coco.py 8
#
# Published (EMAE v2 Table VIII): ViTDet on COCO 50.7 box AP and 45.1 mask AP, UperNet on ADE20K 47.2 mIoU.
_base_ = "emae_vit-base-p16_8xb512-1000e_coco.py"

train_cfg = dict(max_epochs=2000)
record = dict(epochs=2000)
