# A comparison on small real images, 64x64 with patches of 8: see docs/real-images.md.
#
#   emae-mm suite tiny --data-root DIR
#
# DIR holds imagenet_tiny/ (ImageNet folders), coco_mini/ (COCO) and camvid/ (ADE20K layout).
name = "tiny"

pretrain = {
    "EMAE": dict(config="pretrain/tiny/emae_vit-tiny64_folder.py", data="imagenet_tiny"),
    "MAE": dict(config="pretrain/tiny/mae_vit-tiny64_folder.py", data="imagenet_tiny"),
}
baselines = {"random init": "random"}

transfer = {
    "k-NN": dict(config="classification/tiny/knn_vit-tiny64_folder.py", data="imagenet_tiny"),
    "linear probe": dict(config="classification/tiny/linear_vit-tiny64_folder.py", data="imagenet_tiny"),
    "Mask R-CNN": dict(config="detection/tiny/mask-rcnn_vit-tiny64_coco.py", data="coco_mini"),
    "UperNet": dict(config="segmentation/tiny/upernet_vit-tiny64_ade20k.py", data="camvid"),
}
reconstruct = dict(data="imagenet_tiny", images=4, masks=4)
