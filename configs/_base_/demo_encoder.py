# The one encoder of the demonstration, about 0.8 M parameters: 64x64 images in 64 patches of 8x8. In a child config:
#   model = dict(backbone=dict(arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size,
#                              patch_size=_base_.patch_size))
encoder_arch = dict(embed_dim=128, depth=4, num_heads=4)
img_size = 64
patch_size = 8
