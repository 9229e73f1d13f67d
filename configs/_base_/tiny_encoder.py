# The one encoder for folders of small real images, about 1.2 M parameters: 64x64 images in 64 patches of 8x8.
# In a child config, as with demo_encoder.py:
#   model = dict(backbone=dict(arch=dict(_delete_=True, **_base_.encoder_arch), img_size=_base_.img_size,
#                              patch_size=_base_.patch_size))
encoder_arch = dict(embed_dim=128, depth=6, num_heads=4)
img_size = 64
patch_size = 8
