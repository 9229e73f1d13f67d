# What predicting a random share of the hidden patches does: a departure from the paper, faster, with other losses. EMAE
# of the demonstration with all, half and a quarter of the hidden patches predicted, two seeds each.
#
#   emae-mm suite predicted_share --jobs 2
#
# Its step times: python benchmarks/pretrain_step.py --variants. See docs/speed.md.
name = "predicted_share"
embedded_data = True
note = "demonstration data, not a benchmark"

emae = dict(config="pretrain/demo/emae_vit-demo_demo.py", data="classification")
pretrain = {
    f"EMAE, {name} predicted, seed {seed}": dict(
        emae, options={"model.predicted_share": share, "randomness.seed": seed}
    )
    for name, share in (("all", 1.0), ("half", 0.5), ("a quarter", 0.25))
    for seed in (0, 1)
}
del emae

transfer = {
    "k-NN": dict(config="classification/demo/knn_vit-demo_demo.py", data="classification"),
    "linear probe": dict(config="classification/demo/linear_vit-demo_demo.py", data="classification"),
}
