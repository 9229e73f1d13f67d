# COCO format with large-scale jitter as in ViTDet (protocol 5.4): flip, resize by 0.1 to 2.0, crop to at most 1024;
# what is missing to 1024 x 1024 the model fills in after normalisation, with zeros at the right and bottom.
_base_ = ["./coco_lsj.py"]

pipeline_order = [
    "emae_mm.LoadImage", "LoadAnnotations", "RandomFlip", "RandomResize", "RandomCrop", "FilterAnnotations",
    "PackDetInputs",
]  # fmt: skip
train_pipeline = [t for name in pipeline_order for t in _base_.train_pipeline if t.type == name]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
