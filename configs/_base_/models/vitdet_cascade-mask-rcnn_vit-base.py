# ViTDet's Cascade Mask R-CNN on a plain ViT-B/16 at 1024 pixels, as detectron2 has it (protocol 5.4): three box heads,
# one mask head. A config that uses it also imports emae_mm.models.cascade.
_base_ = ["./vitdet_mask-rcnn_vit-base.py"]

# detectron2's weights of the box offsets are the reciprocals of these standard deviations
box_stds = [(1 / 10, 1 / 10, 1 / 5, 1 / 5), (1 / 20, 1 / 20, 1 / 10, 1 / 10), (1 / 30, 1 / 30, 1 / 15, 1 / 15)]
box_ious = [0.5, 0.6, 0.7]

model = dict(
    type="CascadeRCNN",
    roi_head=dict(
        type="emae_mm.Detectron2CascadeRoIHead",
        num_stages=3,
        bbox_head=[
            dict(
                _base_.model.roi_head.bbox_head,
                reg_class_agnostic=True,
                bbox_coder=dict(type="DeltaXYWHBBoxCoder", target_means=(0.0, 0.0, 0.0, 0.0), target_stds=stds),
            )
            for stds in box_stds
        ],
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                _base_.model.train_cfg.rcnn,
                assigner=dict(_base_.model.train_cfg.rcnn.assigner, pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou),
                # the later stages take all refined boxes of the first one's 512
                sampler=_base_.model.train_cfg.rcnn.sampler if stage == 0 else dict(type="PseudoSampler"),
            )
            for stage, iou in enumerate(box_ious)
        ]
    ),
)
