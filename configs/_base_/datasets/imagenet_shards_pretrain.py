# ImageNet-1K's training images in tar shards (see docs/data.md), without labels, augmented as the files are.
# Any shards of images work in their place: --data-root DIR with DIR/train/*.tar, or another pattern in 'shards'.
_base_ = "imagenet_pretrain.py"

data_root = "data/imagenet-shards"
train_dataloader = dict(
    sampler=dict(_delete_=True, type="emae_mm.ShardSampler", shuffle=True, shards_at_once=16),
    dataset=dict(
        _delete_=True, type="emae_mm.TarShards", data_root=data_root, shards="train", pipeline={{_base_.train_pipeline}}
    ),
)
