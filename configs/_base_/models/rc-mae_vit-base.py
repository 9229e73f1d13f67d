# RC-MAE, ViT-B/16 at 224: MAE that must also predict what its teacher predicts, weight 1 (protocol 2).
# What one may turn, the release's value first:
#   momentum=0.996, end_momentum=1.0   the teacher's momentum over the run, along a cosine
#   ema_index="epoch_local"            release: indexed by the iteration within the epoch, so it stays 0.996
#            ="global"                 what the release means to do
#   ema_per="micro"                    release: an update after every forward pass, two a step with 8 x 256 images
#          ="step"                     after every optimiser step
#   teacher_weight=1.0                 gamma
#   masking=dict(type="ParallelMasking", num_parts=4), consistency_weight=1.0    RC-MAE on top of EMAE (no paper's)
model = dict(
    type="emae_mm.RCMAE",
    backbone=dict(type="emae_mm.ViTEncoder", arch="base", img_size=224, patch_size=16),
    decoder=dict(decoder_dim=512, depth=8, num_heads=16),
    mask_ratio=0.75,
    norm_pix=True,
    teacher_weight=1.0,
    momentum=0.996,
    end_momentum=1.0,
    ema_index="epoch_local",
    ema_per="micro",
)
