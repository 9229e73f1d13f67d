# Mask R-CNN with FPN, ViT-L/16: as with ViT-B, but for drop path 0.2 (not stated for EMAE, hence our choice) and four
# groups of six blocks (protocol 5.3).
#
#   tools/dist_train.sh configs/detection/mask-rcnn_vit-large-fpn_8xb8-lsj-100e_coco.py 8 \
#       --data-root data/coco --pretrained encoder.pth
#
# Published (box AP / mask AP): MAE 1600 epochs 53.3 / 47.2, RC-MAE 1600 epochs 53.8 / 47.7 (RC-MAE).
_base_ = ["./mask-rcnn_vit-base-fpn_8xb8-lsj-100e_coco.py"]

model = dict(
    backbone=dict(
        arch=dict(embed_dim=1024, depth=24, num_heads=16),
        drop_path_rate=0.2,
        out_indices=(5, 11, 17, 23),
        global_blocks=(5, 11, 17, 23),
    ),
    neck=[dict(_base_.model.neck[0], embed_dim=1024), dict(_base_.model.neck[1], in_channels=[1024] * 4)],
)
