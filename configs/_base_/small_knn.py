# k-NN for 64x64 images: the full-size evaluation with another size of images. A child config gives the encoder and the
# record.
_base_ = ["../classification/knn_vit-base-p16_in1k.py", "small_classification.py"]

test_dataloader = _base_.small_test_loader
test_cfg = dict(bank_dataloader=_base_.small_test_loader)
