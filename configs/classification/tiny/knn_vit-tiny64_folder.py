# k-NN on a folder of small images (train/CLASS/*, val/CLASS/*), resized to 64x64.
#
#   python tools/test.py configs/classification/tiny/knn_vit-tiny64_folder.py --data-root DIR \
#       --pretrained encoder.pth
#
# There is no published result; for other data than imagenet_tiny add record.data=NAME, the name in the leaderboard.
_base_ = [
    "../knn_vit-base-p16_in1k.py",
    "../../_base_/tiny_encoder.py",
]

test_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(type="mmpretrain.ResizeEdge", scale=_base_.img_size, edge="short", backend="pillow", interpolation="bicubic"),
    dict(type="mmpretrain.CenterCrop", crop_size=_base_.img_size),
    dict(type="mmpretrain.PackInputs"),
]

test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_cfg = dict(bank_dataloader=dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline)))

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    )
)

record = dict(protocol="tiny64-knn-cosine-k20", data="")  # named after the data root's folder
