# k-NN of ViT-B/16 features on ImageNet-1K: mean of the patch tokens after the final norm, cosine similarity,
# softmax-weighted votes (temperature 0.07), training images in the test pipeline as the bank; k = 20 is reported.
# Nothing is trained.
#
#   tools/dist_test.sh configs/classification/knn_vit-base-p16_in1k.py 8 --pretrained encoder.pth
#
# The papers of the leaderboard publish no k-NN numbers.
_base_ = [
    "../_base_/datasets/imagenet_eval.py",
    "../_base_/default_runtime.py",
]

default_scope = "mmpretrain"
pretrained = ""

model = dict(
    type="mmpretrain.ImageClassifier",
    data_preprocessor={{_base_.data_preprocessor}},
    backbone=dict(
        type="emae_mm.ViTForClassification",
        arch="base",
        img_size=224,
        patch_size=16,
        pool="avg_norm",  # not frozen: DistributedDataParallel refuses a model without gradients; the loop takes none
        pretrained="",
    ),
)

test_cfg = dict(
    type="emae_mm.KNNTestLoop",
    bank_dataloader=dict(
        batch_size=256,
        num_workers=8,
        persistent_workers=True,
        pin_memory=True,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=dict(type="default_collate"),
        dataset=dict(
            type="emae_mm.ImageFolder", data_root=_base_.data_root, data_prefix="train", pipeline=_base_.test_pipeline
        ),
    ),
    k=(10, 20, 100),
    primary_k=20,
    temperature=0.07,
    weighting="softmax",
)
test_evaluator = []

record = dict(task="imagenet-knn", protocol="knn-cosine-k20", data="ImageNet-1K", metric="top1")
