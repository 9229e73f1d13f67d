# k-NN on a folder of small images (train/CLASS/*, val/CLASS/*), resized to 64x64.
#
#   python tools/test.py configs/classification/tiny/knn_vit-tiny64_folder.py --data-root DIR \
#       --pretrained encoder.pth
#
# There is no published result; for other data than imagenet_tiny add record.data=NAME, the name in the leaderboard.
_base_ = ["../../_base_/small_knn.py", "../../_base_/tiny_encoder.py"]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size, patch_size=_base_.patch_size
    )
)
record = dict(protocol="tiny64-knn-cosine-k20", data="")  # named after the data root's folder
