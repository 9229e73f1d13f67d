# COCO format with large-scale jitter: resize by 0.1 to 2.0, crop and pad to 1024, then flip (protocol 5.3).
# Below data_root: annotations/instances_{train,val}2017.json, train2017/, val2017/.
# As in detectron2, images are resized by Pillow (shrinking averages, where OpenCV's bilinear resize skips pixels), and
# a crop that shows no object is kept ("keep_empty=False": no other image is drawn in its place).
data_root = "data/coco"

train_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomResize", scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True, backend="pillow"),
    dict(
        type="RandomCrop", crop_type="absolute", crop_size=(1024, 1024), recompute_bbox=True, allow_negative_crop=True
    ),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2), keep_empty=False),
    # the mean colour (blue, green, red), zero after normalisation; before the flip, so that padding is on either side
    dict(type="Pad", size=(1024, 1024), pad_val=dict(img=(103.53, 116.28, 123.675), masks=0)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="Resize", scale=(1024, 1024), keep_ratio=True, backend="pillow"),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="emae_mm.CocoFormatDataset",
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="emae_mm.CocoFormatDataset",
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="emae_mm.CocoMetric", ann_file=data_root + "/annotations/instances_val2017.json", metric=["bbox", "segm"]
)
test_evaluator = val_evaluator
