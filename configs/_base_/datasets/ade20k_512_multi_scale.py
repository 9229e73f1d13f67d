# ADE20K's test images at several scales and mirrored, as BEiT and CAE test: 0.5 to 1.75 of 512 pixels for the short
# side, but no less than the crop, so that the three smallest are the same. Twelve versions of every image; the mean of
# their probabilities decides. Variables only, so that this can stand beside another base; see test_cfg in the configs.
multi_scale_pipeline = [
    dict(type="emae_mm.LoadImage"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(2048, 512), keep_ratio=True),
                dict(type="Resize", scale=(2048, 512), keep_ratio=True),
                dict(type="Resize", scale=(2048, 512), keep_ratio=True),
                dict(type="Resize", scale=(2560, 640), keep_ratio=True),
                dict(type="Resize", scale=(3072, 768), keep_ratio=True),
                dict(type="Resize", scale=(3584, 896), keep_ratio=True),
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0, direction="horizontal")],
            # predictions are compared at the original size
            [dict(type="LoadAnnotations", reduce_zero_label=True)],
            [dict(type="PackSegInputs")],
        ],
    ),
]
