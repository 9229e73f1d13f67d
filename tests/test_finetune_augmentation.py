"""MAE's fine-tuning augmentations, as the configs build them, against timm, which the MAE release takes them from."""

import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, init_default_scope
from mmpretrain.models.utils.batch_augments import RandomBatchAugment
from PIL import Image
from timm.data import Mixup
from timm.data.auto_augment import AugmentOp, rand_augment_transform
from timm.data.mixup import mixup_target
from timm.data.random_erasing import RandomErasing as TimmRandomErasing
from timm.loss import SoftTargetCrossEntropy
from torch.nn.functional import one_hot

from emae_mm.registry import MODELS

CLASSES = 10


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


@pytest.fixture(scope="module")
def config(repo):
    return Config.fromfile(repo / "configs/classification/finetune_vit-base-p16_8xb128-100e_in1k.py")


@pytest.fixture(scope="module")
def transforms(config):
    init_default_scope("mmpretrain")
    return {step.type.split(".")[1]: TRANSFORMS.build(step) for step in config.train_dataloader.dataset.pipeline}


@pytest.fixture(scope="module")
def photograph():
    """(224, 224, 3) uint8 RGB, smooth like a photograph: resampling rounds it nearly alike everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((224, 224), Image.BICUBIC))


def augment(transform, image):
    """A transform for BGR images on an RGB one."""
    return transform.transform(dict(img=image[..., ::-1].copy()))["img"][..., ::-1]


def test_randaugment_has_timms_operations(transforms, photograph):
    """Operation for operation at magnitude 9. OpenCV and Pillow round differently, and draw signs in opposite order."""
    ours = transforms["RandAugment"]
    timms = rand_augment_transform(
        "rand-m9-mstd0.5-inc1", dict(img_mean=(124, 116, 104), interpolation=Image.BICUBIC, translate_const=100)
    )
    assert len(ours.transforms) == len(timms.ops) == 15
    assert (ours.num_policies, ours.magnitude_level, ours.magnitude_std) == (timms.num_layers, 9, 0.5)
    for transform, operation in zip(ours.transforms, timms.ops, strict=True):
        assert (operation.magnitude, operation.magnitude_std) == (9, 0.5)
        assert transform.prob == operation.prob == 0.5
        found, wanted = both_signs(transform, operation, photograph)
        distances = [min(np.abs(a.astype(int) - b.astype(int)).mean() for b in wanted) for a in found]
        # of 255 grey levels; what the operations themselves change is 2 to 145 levels
        assert max(distances) < 1.5, operation.name
        assert len({image.tobytes() for image in found}) == len({image.tobytes() for image in wanted}), operation.name


def both_signs(transform, operation: AugmentOp, image) -> tuple[list, list]:
    """Our and timm's images for both signs of the magnitude 9, certain to be applied and without deviation."""
    found, wanted = [], []
    kept = transform.prob, transform.random_negative_prob, transform.magnitude_std, operation.magnitude_std
    transform.prob, transform.magnitude_std, operation.prob, operation.magnitude_std = 1.0, 0.0, 1.0, 0.0
    draw = random.random
    for negative in (0.0, 1.0):
        transform.random_negative_prob = negative if kept[1] else 0.0
        random.random = lambda value=negative: value  # timm negates above 0.5
        found.append(augment(transform, image))
        wanted.append(np.asarray(operation(Image.fromarray(image))))
    random.random = draw
    transform.prob, transform.random_negative_prob, transform.magnitude_std, operation.magnitude_std = kept
    return found, wanted


def test_erasing_is_timms_once_the_image_is_normalised(config, transforms, photograph):
    preprocessor = config.model.data_preprocessor
    mean, std = (np.asarray(values, np.float32)[::-1] for values in (preprocessor.mean, preprocessor.std))  # BGR
    timms = TimmRandomErasing(probability=0.25, mode="pixel", max_count=1, device="cpu")
    erased = beyond = 0
    for seed in range(200):
        random.seed(seed), torch.manual_seed(seed)
        found = transforms["RandomErasing"].transform(dict(img=photograph.copy()))["img"]
        normalised = torch.from_numpy((photograph - mean) / std).permute(2, 0, 1)
        random.seed(seed), torch.manual_seed(seed)
        wanted = timms(normalised.clone())
        # both are rounded to whole grey levels, of which the smallest standard deviation has 57
        torch.testing.assert_close(
            torch.from_numpy((found - mean) / std).permute(2, 0, 1), wanted, atol=0.51 / 57, rtol=0
        )
        erased += not torch.equal(wanted, normalised)
        beyond += ((found < 0) | (found > 255)).any()
    assert 30 <= erased <= 70, "a quarter of 200, four standard deviations"
    assert beyond == erased, "noise is not clipped to the image's range"


@pytest.fixture
def mixing(config, monkeypatch):
    """The config's mixing with timm's pairs: first and last, second and last but one."""
    monkeypatch.setattr(torch, "randperm", lambda count: torch.arange(count).flip(0))
    return RandomBatchAugment(**config.model.train_cfg)


def timm_mixing(smoothing: float, classes: int) -> Mixup:
    return Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=smoothing, num_classes=classes)


@pytest.mark.parametrize("use_cutmix", [False, True])
def test_mixing_and_loss_are_timms(config, mixing, use_cutmix, monkeypatch):
    """The same shares and boxes drawn: the same images, and the same loss on smoothed mixed targets."""
    images, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 3, 9, 9, 4, 1])
    timms = timm_mixing(0.1, CLASSES)
    monkeypatch.setattr(np.random, "choice", lambda n, p=None: int(use_cutmix))
    monkeypatch.setattr(timms, "switch_prob", float(use_cutmix))
    monkeypatch.setattr(np.random, "rand", lambda: 0.5)
    # a draw whose box has an even number of pixels: later versions of timm than MAE's add one to an odd one
    np.random.seed(7)
    mixed, scores = mixing(images.clone(), one_hot(labels, CLASSES))
    np.random.seed(7)
    wanted, targets = timms(images.clone(), labels)
    assert not torch.equal(wanted, images)
    torch.testing.assert_close(mixed, wanted)
    logits = torch.randn(6, CLASSES)
    loss = MODELS.build(dict(config.model.head.loss, num_classes=CLASSES))
    torch.testing.assert_close(loss(logits, scores), SoftTargetCrossEntropy()(logits, targets))


def test_mixing_draws_as_timm_does(mixing):
    """How often each kind, and how large the shares are, over many batches of a black and a white image."""
    count, timms = 4000, timm_mixing(0.0, 2)
    images = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])

    def draw(mix, labels):
        mixed, targets = zip(*(mix(images.clone(), labels) for _ in range(count)), strict=True)
        kinds = torch.tensor([float((batch % 1).any()) for batch in mixed])
        return torch.stack([kinds, torch.stack(targets).amax(dim=(1, 2))])

    np.random.seed(0)
    found, wanted = draw(mixing, torch.eye(2)), draw(timms, torch.tensor([0, 1]))
    # four standard errors of the difference of two means
    errors = 4 * (2 / count) ** 0.5 * wanted.std(dim=1)
    assert ((found - wanted).mean(dim=1).abs() < errors).all()
    assert wanted[0].mean() == pytest.approx(0.5, abs=0.05), "half of the batches are mixtures, half have boxes"


def test_smoothing_is_linear():
    """Smoothing mixed labels (ours) is mixing smoothed labels (timm's)."""
    labels = torch.tensor([1, 4])
    mixed = mixup_target(labels, CLASSES, lam=0.3, smoothing=0.0)
    torch.testing.assert_close(0.9 * mixed + 0.1 / CLASSES, mixup_target(labels, CLASSES, lam=0.3, smoothing=0.1))
