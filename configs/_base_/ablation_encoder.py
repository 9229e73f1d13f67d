# The encoder of the small ablations: images of 56x64 in 7x8 = 56 patches of 8x8, a number that the paper's K = 4, 7 and
# 14 all divide (196, the number at full size, costs six times as much). Used like demo_encoder.py.
encoder_arch = dict(embed_dim=64, depth=4, num_heads=2)
img_size = (56, 64)
patch_size = 8
