"""Our preprocessor against mmpretrain's: the same values, bit for bit, and the caller's images untouched."""

import pytest
import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor

from emae_mm.models.preprocess import ImagePreprocessor

SETTINGS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@pytest.mark.parametrize("to_rgb", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("views", [0, 1, 2])
def test_the_same_values_as_mmpretrains(views, dtype, to_rgb):
    torch.manual_seed(0)
    images = [torch.randint(0, 256, (4, 3, 16, 24)).to(dtype) for _ in range(max(views, 1))]
    before = [image.clone() for image in images]
    inputs = images if views else images[0]
    ours = ImagePreprocessor(**SETTINGS, to_rgb=to_rgb)(dict(inputs=inputs, data_samples=["a"]), training=True)
    theirs = SelfSupDataPreprocessor(**SETTINGS, to_rgb=to_rgb)(dict(inputs=inputs, data_samples=["a"]), training=True)
    assert ours["data_samples"] == theirs["data_samples"]
    pairs = zip(ours["inputs"], theirs["inputs"], strict=True) if views else [(ours["inputs"], theirs["inputs"])]
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(images, before, strict=True))


def test_without_mean_and_std_only_the_type_changes():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    out = ImagePreprocessor()(dict(inputs=images, data_samples=None))
    assert torch.equal(out["inputs"], images.float())
