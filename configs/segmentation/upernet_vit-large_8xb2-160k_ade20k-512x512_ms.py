# Test, at several scales and mirrored, of what upernet_vit-large_8xb2-160k_ade20k-512x512.py trained.
#
#   tools/dist_test.sh configs/segmentation/upernet_vit-large_8xb2-160k_ade20k-512x512_ms.py 8 \
#       work_dirs/upernet_vit-large_8xb2-160k_ade20k-512x512/iter_160000.pth \
#       --data-root data/ade/ADEChallengeData2016
#
# The papers of the leaderboard publish single-scale numbers.
_base_ = ["upernet_vit-large_8xb2-160k_ade20k-512x512.py", "../_base_/datasets/ade20k_512_multi_scale.py"]

record = dict(protocol="mae-upernet-160k-ms")
test_dataloader = dict(dataset=dict(pipeline=_base_.multi_scale_pipeline))
test_cfg = dict(_delete_=True, type="emae_mm.MultiScaleTestLoop")
# the single-scale config trains
train_dataloader = train_cfg = optim_wrapper = param_scheduler = None
val_dataloader = val_cfg = val_evaluator = None
