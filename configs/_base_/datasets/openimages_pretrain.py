# OpenImages' training images that have boxes (1 743 042), without labels, augmented as ImageNet's.
# The papers do not say whether images are turned upright; here they are, as the list's column says (2.6 % of them).
_base_ = "imagenet_pretrain.py"

data_root = "data/openimages"
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="emae_mm.OpenImages",
        data_root=data_root,
        ann_file="train-images-boxable-with-rotation.csv",
        subset="train",
        apply_rotation=True,
        pipeline={{_base_.train_pipeline}},
    )
)
