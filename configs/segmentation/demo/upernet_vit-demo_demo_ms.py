# Test, at several scales and mirrored, of what upernet_vit-demo_demo.py trained.
#
#   python tools/test.py configs/segmentation/demo/upernet_vit-demo_demo_ms.py CHECKPOINT --data-root DIR
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../upernet_vit-base_8xb2-160k_ade20k-512x512_ms.py", "../../_base_/demo_upernet.py"]

record = dict(protocol="demo-upernet-ms", data="emae-demo")
model = _base_.small_model
load, versions = _base_.multi_scale_pipeline
scales = [dict(type="Resize", scale=(256, side), keep_ratio=True) for side in (64, 80, 112)]
pipeline = [load, dict(versions, transforms=[scales, *versions.transforms[1:]])]
test_dataloader = dict(_base_.small_test_loader, batch_size=4, dataset=dict(_base_.small_data, pipeline=pipeline))
