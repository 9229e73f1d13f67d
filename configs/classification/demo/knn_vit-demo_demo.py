# k-NN on the demonstration data: the full-size evaluation at 64x64.
#
#   emae-mm demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = [
    "../knn_vit-base-p16_in1k.py",
    "../../_base_/demo_encoder.py",
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

record = dict(protocol="demo-knn-cosine-k20", data="emae-demo")
