# Multi-View MAE, ViT-B/16 at 224 (protocol 3). Of the paper only headings, tables and abstract could be read. They have
# two views, the mask ratio of 80 %, masking and random crops as the only augmentation, a contrastive loss on the
# encoder's output and reconstruction by a decoder. Everything else below is chosen.
# Its ablations, the default first or in brackets:
#   mask_ratio          0.5, 0.75, (0.8), 0.9, 0.95
#   contrast_weight     0.1, 0.5, (1.0), 1.5, 2.0      "loss weight"; could instead scale the reconstruction
#   decoder.depth       1, 2, 4, (8), 12
#   two_targets=False   "without two different targets": one crop under two masks; the pipeline then gives one view
#   contrast_weight=0   "without contrastive loss"
# e.g. --cfg-options model.mask_ratio=0.9
# or   --cfg-options model.two_targets=False train_dataloader.dataset.pipeline.1.num_views=[1]
model = dict(
    type="emae_mm.MultiViewMAE",
    backbone=dict(type="emae_mm.ViTEncoder", arch="base", img_size=224, patch_size=16),
    decoder=dict(decoder_dim=512, depth=8, num_heads=16),  # depths 4 and 8 are equally good in the paper
    mask_ratio=0.8,  # 39 of 196 patches are visible
    norm_pix=True,
    two_targets=True,
    contrast_weight=1.0,
    temperature=0.1,
    projector=dict(hidden_dim=2048, out_dim=128, norm=dict(type="SyncBN")),
)
