# ViTDet's Mask R-CNN on a plain ViT-B/16 at 1024 pixels, as detectron2 has it (protocol 5.4). Proposals, heads, losses
# and their limits are those of the Mask R-CNN with FPN; ViTDet's are the encoder's attention (windows of 14 x 14
# patches save in four blocks, decomposed relative positions), a pyramid of the last map alone, and channel layer norm
# (eps 1e-6) in pyramid, box and mask head.
_base_ = ["./mask-rcnn_vit-base-fpn.py"]
norm_cfg = dict(type="emae_mm.LN2d", eps=1e-6)

model = dict(
    # positions stay those of pre-training, and are resampled in every pass
    backbone=dict(out_indices=(11,), window_size=14, rel_pos_bias="decomposed", position_size=224),
    neck=dict(_delete_=True, type="emae_mm.SimpleFeaturePyramid", embed_dim=768, out_channels=256, norm_cfg=norm_cfg),
    roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)),
)
