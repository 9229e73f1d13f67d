# CAE on a folder of small images (64x64 in 64 patches): the full-size config with a small encoder, half of the patches
# hidden as there, and a small tokenizer that is random on purpose: its codes say little, the run shows that all works.
#
#   python tools/train.py configs/pretrain/tiny/cae_vit-tiny64_folder.py --data-root DIR
#
# DIR is an ImageNet-style folder (train/<class>/*.jpg; labels are not used). There is no published result. The encoder
# has LayerScale: transfer configs need --cfg-options model.backbone.init_values=0.1.
_base_ = [
    "../cae_vit-base-p16_8xb256-300e_in1k.py",
    "../../_base_/tiny_encoder.py",
    "../../_base_/small_pretrain.py",
]

tokenizer = "random"
num_codes = 64
num_hidden = 32

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=_base_.encoder_arch.embed_dim,
            num_layers=_base_.encoder_arch.depth,
            num_heads=_base_.encoder_arch.num_heads,
            feedforward_channels=4 * _base_.encoder_arch.embed_dim,
        ),
        img_size=_base_.img_size,
        patch_size=_base_.patch_size,
    ),
    neck=dict(
        num_classes=num_codes,
        embed_dims=_base_.encoder_arch.embed_dim,
        num_heads=_base_.encoder_arch.num_heads,
        regressor_depth=1,
        decoder_depth=1,
        mask_tokens_num=num_hidden,
    ),
    target_generator=dict(n_hid=8, vocab_size=num_codes),
)

pipeline = [
    dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=100),
    dict(type="mmpretrain.RandomFlip", prob=0.5),
    dict(
        type="emae_mm.RandomResizedCropTwoSizes",
        scale=_base_.img_size,
        second_scale=64,  # one code for each of 8x8 patches
        crop_ratio_range=(0.08, 1.0),
        interpolation="bicubic",
        second_interpolation="lanczos",
    ),
    dict(type="emae_mm.BlockMask", input_size=(8, 8), num_masking_patches=num_hidden, min_num_patches=4),
    dict(type="mmpretrain.PackInputs"),
]

global_batch_size = 32
train_dataloader = dict(batch_size=32, num_workers=0, persistent_workers=False, dataset=dict(pipeline=pipeline))
optim_wrapper = dict(dtype="float32", optimizer=dict(lr=_base_.small_lr))
param_scheduler = _base_.small_warmup
auto_scale_lr = dict(base_batch_size=32)

train_cfg = dict(max_epochs=5)
record = dict(data="", epochs=5)  # named after the data root's folder
