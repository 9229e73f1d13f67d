# The ablations of the EMAE paper, full size: ViT-B/16 on ImageNet-1K, linear probing (Tables X to XIV; protocol 1.3 and
# 1.4). Every (method, epochs) that several tables show is pre-trained once: 29 pre-trainings.
#
#   emae-mm suite ablations --data-root DIR
#
# DIR holds imagenet/ (ImageNet folders). For a cluster, run the same configs and options with tools/train.py.
name = "ablations"
note = "ablations of EMAE (arXiv:2302.14431v2)"

pretrain = {
    # one random mask; the ratios are (K-1)/K, written such that exactly 49, 28 and 14 of 196 patches stay visible
    "MAE": dict(config="pretrain/mae_vit-base-p16_8xb512-300e_in1k.py", data="imagenet"),
    "MAE, 6/7 hidden": dict(
        config="pretrain/mae_vit-base-p16_8xb512-300e_in1k.py", data="imagenet", options={"model.mask_ratio": 0.857}
    ),
    "MAE, 13/14 hidden": dict(
        config="pretrain/mae_vit-base-p16_8xb512-300e_in1k.py", data="imagenet", options={"model.mask_ratio": 0.9285}
    ),
    # K disjoint parts, both losses
    "EMAE": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py",
        data="imagenet",
        options={"model.log_prediction_variance": True},
    ),
    "EMAE, K=7": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py", data="imagenet", options={"model.num_parts": 7}
    ),
    "EMAE, K=14": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py", data="imagenet", options={"model.num_parts": 14}
    ),
    # one loss only; a constant prediction minimises the consistency, hence the logged variance
    "EMAE, pixel only": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py",
        data="imagenet",
        options={"model.consistency_weight": 0.0, "model.log_prediction_variance": True},
    ),
    "EMAE, consistency only": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py",
        data="imagenet",
        options={"model.reconstruction_weight": 0.0, "model.log_prediction_variance": True},
    ),
    # other masks, pixel loss only
    "pure random masking": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py",
        data="imagenet",
        options={
            "model.masking": dict(type="PureRandomMasking", num_parts=4, mask_ratio=0.75),
            "model.consistency_weight": 0.0,
        },
    ),
    "complementary masking": dict(
        config="pretrain/emae_vit-base-p16_8xb512-300e_in1k.py",
        data="imagenet",
        options={
            "model.masking": dict(type="ComplementaryMasking", mask_ratio=0.75),
            "model.consistency_weight": 0.0,
        },
    ),
}
baselines = {}

transfer = {
    "linear probe": dict(config="classification/linear_vit-base-p16_8xb2048-90e_in1k.py", data="imagenet"),
}

tables = dict(
    X=dict(
        title="Table X: mask strategies",
        epochs=[200],
        published=dict(source="EMAE v2 (arXiv:2302.14431v2)", source_table="Table X"),
        rows=[
            dict(label="(a) random mask (MAE)", run="MAE", published=dict(method_in_source="(a) baseline")),
            dict(
                label="(b) pure random masks",
                run="pure random masking",
                published=dict(method_in_source="(b) pure random mask"),
            ),
            dict(
                label="(c) parallel masks", run="EMAE, pixel only", published=dict(method_in_source="(c) parallel mask")
            ),
            dict(
                label="(d) complementary masks",
                run="complementary masking",
                published=dict(method_in_source="(d) complementary mask"),
            ),
        ],
        note="Pixel reconstruction only, 4 masks of 75 % for (b) and (c). The ratios of (d), 25 and 75 %, are lost in "
        "the paper's text and follow from its description.",
    ),
    XI=dict(
        title="Table XI: losses, parallel masks",
        epochs=[200],
        published=dict(source="EMAE v2 (arXiv:2302.14431v2)", source_table="Table XI"),
        rows=[
            dict(
                label="(a) pixel reconstruction",
                run="EMAE, pixel only",
                published=dict(method_in_source="(a) pixel reconstruction"),
            ),
            dict(
                label="(b) self-consistency only",
                run="EMAE, consistency only",
                published=dict(method_in_source="(b) pure self-consistency"),
            ),
            dict(
                label="(c) both",
                run="EMAE",
                published=dict(method_in_source="(c) pixel reconstruction + self-consistency"),
            ),
        ],
        pretrain_metrics=["prediction_variance"],
        note="The prediction variance is taken over images and positions at the end of pre-training: near 0, all "
        "predictions are alike and the model has collapsed, which nothing in the loss of (b) prevents.",
    ),
    XII=dict(
        title="Table XII: components",
        epochs=[100, 200, 300, 800],
        published=dict(source="EMAE v2 (arXiv:2302.14431v2)", source_table="Table XII"),
        rows=[
            dict(label="baseline (MAE)", run="MAE", published=dict(method_in_source="baseline")),
            dict(
                label="+ parallel masks",
                run="EMAE, pixel only",
                published=dict(method_in_source="+ parallel mask strategy"),
            ),
            dict(label="++ self-consistency", run="EMAE", published=dict(method_in_source="++ self-consistency")),
        ],
    ),
    XIII=dict(
        title="Table XIII: longer pre-training",
        epochs=[1600],
        published=dict(source="EMAE v2 (arXiv:2302.14431v2)", task="imagenet-linear"),
        rows=[
            dict(label="MAE", run="MAE", published=dict(method_in_source="MAE", arch="ViT-B", source_table="Table II")),
            dict(label="EMAE", run="EMAE", published=dict(method_in_source="EMAE", source_table="Table XIII")),
        ],
    ),
    XIV=dict(
        title="Table XIV: number of parts K, and MAE at the same mask ratio",
        epochs=[100, 300, 800],
        published=dict(source="EMAE v2 (arXiv:2302.14431v2)", source_table="Table XIV"),
        rows=[
            dict(
                label="(a) MAE, 75.0 % hidden",
                run="MAE",
                published=dict(method_in_source="(a) MAE mask ratio = (digits lost)"),
            ),
            dict(label="(b) EMAE, K = 4", run="EMAE", published=dict(method_in_source="(b) EMAE K = 4")),
            dict(
                label="(c) MAE, 85.7 % hidden",
                run="MAE, 6/7 hidden",
                published=dict(method_in_source="(c) MAE mask ratio = (digits lost)"),
            ),
            dict(label="(d) EMAE, K = 7", run="EMAE, K=7", published=dict(method_in_source="(d) EMAE K = 7")),
            dict(
                label="(e) MAE, 92.9 % hidden",
                run="MAE, 13/14 hidden",
                published=dict(method_in_source="(e) MAE mask ratio = (digits lost)"),
            ),
            dict(label="(f) EMAE, K = 14", run="EMAE, K=14", published=dict(method_in_source="(f) EMAE K = 14")),
        ],
        note="The published mask ratios of (a), (c) and (e) are lost; (K-1)/K of the row below each is used.",
    ),
)
