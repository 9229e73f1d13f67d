# k-NN on the demonstration data: the full-size evaluation at 64x64.
#
#   emae-mm demo
#
# A demonstration, not a benchmark; there is no published result.
_base_ = ["../../_base_/small_knn.py", "../../_base_/demo_encoder.py"]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    )
)
record = dict(protocol="demo-knn-cosine-k20", data="emae-demo")
