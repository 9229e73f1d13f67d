# The ablations of the EMAE paper in small: the same variants, tables and published columns on the embedded data set,
# with a tiny encoder, and one epoch of 125 steps for every 100 of the paper's.
#
#   emae-mm suite ablations_demo --jobs 2
#
# A demonstration that every variant runs, not a benchmark: see docs/ablations.md.
_base_ = "ablations.py"

name = "ablations_demo"
embedded_data = True
note = "demonstration data, not a benchmark"
epoch_scale = 0.01

pretrain = {
    "MAE": dict(config="pretrain/ablation/mae_vit-ablation_demo.py", data="classification"),
    "MAE, 6/7 hidden": dict(config="pretrain/ablation/mae_vit-ablation_demo.py", data="classification"),
    "MAE, 13/14 hidden": dict(config="pretrain/ablation/mae_vit-ablation_demo.py", data="classification"),
    "EMAE": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
    "EMAE, K=7": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
    "EMAE, K=14": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
    "EMAE, pixel only": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
    "EMAE, consistency only": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
    "pure random masking": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
    "complementary masking": dict(config="pretrain/ablation/emae_vit-ablation_demo.py", data="classification"),
}
baselines = {"random init": "random"}

transfer = {
    "linear probe": dict(config="classification/ablation/linear_vit-ablation_demo.py", data="classification"),
}

tables = dict(X=dict(seeds=2), XI=dict(seeds=2))
