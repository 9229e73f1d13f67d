# The demonstration: the whole line on the embedded data set.
#
#   emae-mm demo
name = "demo"
embedded_data = True
note = "demonstration data, not a benchmark"

pretrain = {
    "EMAE": dict(config="pretrain/demo/emae_vit-demo_demo.py", data="classification"),
    "MAE": dict(config="pretrain/demo/mae_vit-demo_demo.py", data="classification"),
}
baselines = {"random init": "random"}

transfer = {
    "k-NN": dict(config="classification/demo/knn_vit-demo_demo.py", data="classification"),
    "linear probe": dict(config="classification/demo/linear_vit-demo_demo.py", data="classification"),
    "Mask R-CNN": dict(config="detection/demo/mask-rcnn_vit-demo_demo.py", data="coco"),
    "UperNet": dict(config="segmentation/demo/upernet_vit-demo_demo.py", data="ade20k"),
}
reconstruct = dict(data="classification", images=3, masks=4)
