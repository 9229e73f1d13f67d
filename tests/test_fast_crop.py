"""Fast input against exact input: the same boxes, nearly the same pixels, the same policy for odd and broken files."""

import io
import pickle

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine import Config
from mmengine.dataset import Compose
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from skimage import data

import emae_mm.registry  # noqa: F401 - registers the transforms
from emae_mm.data.checks.config import plain_datasets
from emae_mm.data.decoding import decode_image
from emae_mm.data.fast_crop import LoadImageRandomResizedCrop, decode_jpeg, jpeg_size, reduced_box, resize_crop
from emae_mm.errors import ConfigError, DataError
from emae_mm.paths import configs_dir

SIZE = 64
OPTIONS = dict(scale=SIZE, crop_ratio_range=(0.2, 1.0))


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Real ones, since noise has no low frequencies and smooth patterns no others."""
    return [Image.fromarray(array()).convert("RGB") for array in (data.astronaut, data.chelsea, data.coffee)]


def encode(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **({"quality": 90} if format == "JPEG" else {}) | options)
    return buffer.getvalue()


class Member:
    """As a shard's member."""

    def __init__(self, data: bytes):
        self.data = data

    def read(self) -> bytes:
        return self.data


def load(data: bytes, seed: int = 0, extra: dict | None = None, **options) -> dict:
    np.random.seed(seed)
    step = LoadImageRandomResizedCrop(**OPTIONS | options)
    return step({"img_path": "a.jpg", "img_source": Member(data), **(extra or {})})


def drawn_box(step: LoadImageRandomResizedCrop, sample: dict, seed: int) -> tuple:
    """What the step draws, whatever it does with it."""
    boxes, draw = [], step.crop.rand_crop_params
    step.crop.rand_crop_params = lambda image: boxes.append(draw(image)) or boxes[-1]
    np.random.seed(seed)
    step(sample)
    (box,) = boxes
    return box


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("oversampling", [1.0, 1.5, float("inf")])
def test_every_path_draws_the_same_box_and_leaves_the_same_random_state(photographs, oversampling):
    sample = {"img_path": "a.jpg", "img_source": Member(encode(photographs[0]))}
    reference = RandomResizedCrop(backend="pillow", interpolation="bicubic", **OPTIONS)
    for seed in range(20):
        np.random.seed(seed)
        expected = reference.rand_crop_params(np.asarray(photographs[0]))
        after = np.random.random()
        for options in ({"exact": True}, {"oversampling": oversampling}):
            assert drawn_box(LoadImageRandomResizedCrop(**OPTIONS | options), dict(sample), seed) == expected
            assert np.random.random() == after


def test_exact_path_is_bit_equal_to_mmpretrains_two_steps(tmp_path, photographs):
    for index, picture in enumerate(photographs):
        path = tmp_path / f"{index}.jpg"
        path.write_bytes(encode(picture))
        usual = Compose([LoadImageFromFile(), RandomResizedCrop(backend="pillow", interpolation="bicubic", **OPTIONS)])
        for seed in range(5):
            np.random.seed(seed)
            expected = usual({"img_path": str(path)})
            np.random.seed(seed)
            ours = LoadImageRandomResizedCrop(exact=True, **OPTIONS)({"img_path": str(path)})
            assert np.array_equal(ours["img"], expected["img"])
            assert {key: ours[key] for key in ("img_shape", "ori_shape")} == {
                key: expected[key] for key in ("img_shape", "ori_shape")
            }


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"mode": "L"}, {"format": "PNG"}])
def test_full_decoding_is_the_same_input(photographs, options):
    """Rounding only: an error of one level in every value would be 48 dB."""
    mode, options = options.get("mode", "RGB"), {key: options[key] for key in options if key != "mode"}
    for picture in photographs:
        encoded = encode(picture.convert(mode), **options)
        for seed in range(5):
            exact = load(encoded, seed, exact=True)
            fast = load(encoded, seed, oversampling=float("inf"))
            assert psnr(fast["img"], exact["img"]) > 60
            assert np.abs(fast["img"].astype(int) - exact["img"]).max() <= 2
            assert fast["img"].dtype == np.uint8 and fast["img_shape"] == exact["img_shape"] == (SIZE, SIZE, 3)
            assert fast["ori_shape"] == exact["ori_shape"] == picture.size[::-1]


@pytest.mark.parametrize("reduction", [2, 4])
def test_reduced_decoding_comes_close(photographs, reduction):
    """At equal boxes only the two low-pass filters differ; a wrong box or half a pixel's shift costs 10 dB and more."""
    found = []
    for picture in photographs:
        picture = picture.resize((1024, 768))
        encoded, edge = encode(picture), round(1.6 * reduction * SIZE)
        exact_step = LoadImageRandomResizedCrop(exact=True, **OPTIONS)
        fast_step = LoadImageRandomResizedCrop(**OPTIONS)
        for top, left in ((0, 0), (3 * reduction, 8 * reduction), (768 - edge, 1024 - edge)):
            top, left = top // reduction * reduction, left // reduction * reduction
            box = (top, left, edge // reduction * reduction, edge // reduction * reduction)
            images = []
            for step in (exact_step, fast_step):
                step.crop.rand_crop_params = lambda image, box=box: box
                images.append(step({"img_path": "a.jpg", "img_source": Member(encoded)})["img"])
            assert fast_step._reduction(box) == reduction
            found.append(psnr(*images))
            assert np.abs(images[0].mean((0, 1)) - images[1].mean((0, 1))).max() < 0.5  # of 255 levels
    assert min(found) > 36 and np.mean(found) > 42, found


def test_reduction_keeps_the_asked_number_of_pixels():
    step = LoadImageRandomResizedCrop(scale=100, oversampling=1.5)
    reductions = [step._reduction((0, 0, edge, 4000)) for edge in (100, 299, 300, 599, 600, 1199, 1200, 4000)]
    assert reductions == [1, 1, 2, 2, 4, 4, 8, 8]
    never = LoadImageRandomResizedCrop(scale=100, oversampling=float("inf"))
    assert never._reduction((0, 0, 9000, 9000)) == 1


@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_reduced_boxes_move_by_half_a_reduced_pixel_at_most_and_stay_inside(reduction):
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(30, 100, 2)
        top, left = rng.integers(0, height - 16), rng.integers(0, width - 16)
        box = (top, left, rng.integers(16, height - top + 1), rng.integers(16, width - left + 1))
        found = reduced_box(box, reduction)
        assert found[0] + found[2] <= -(-height // reduction) and found[1] + found[3] <= -(-width // reduction)
        for start in (0, 1):
            assert abs(found[start] * reduction - box[start]) <= reduction / 2
            end = (found[start] + found[start + 2]) * reduction
            assert abs(end - box[start] - box[start + 2]) <= reduction / 2


def test_decoding_at_every_size_rounds_up(photographs):
    encoded = encode(photographs[2].resize((101, 75)))
    for reduction, shape in ((1, (75, 101, 3)), (2, (38, 51, 3)), (4, (19, 26, 3)), (8, (10, 13, 3))):
        assert decode_jpeg(encoded, (75, 101), reduction).shape == shape
    # libjpeg-turbo of two packages with the same settings; a level of rounding between their versions
    assert np.abs(decode_jpeg(encoded, (75, 101)).astype(int) - decode_image(encoded)).max() <= 1


def test_damage_in_the_middle_is_left_to_the_tolerant_decoder(photographs):
    encoded = encode(photographs[0])
    damaged = encoded[:20000] + bytes(64) + encoded[20064:]
    assert decode_jpeg(damaged, (512, 512)) is None
    exact, fast = load(damaged, 2, exact=True), load(damaged, 2, oversampling=1.0)
    assert psnr(fast["img"], exact["img"]) > 50


def test_odd_sizes_at_every_reduction(photographs):
    for width, height in ((1023, 769), (517, 1001), (65, 1400)):
        encoded = encode(photographs[2].resize((width, height)))
        for seed in range(5):
            result = load(encoded, seed, scale=16, oversampling=1.0)
            assert result["img"].shape == (16, 16, 3) and result["ori_shape"] == (height, width)


@pytest.mark.parametrize("size", [(40, 30), (1, 1), (3, 200), (64, 64)])
def test_images_smaller_than_the_output_are_enlarged_as_by_pillow(photographs, size):
    encoded = encode(photographs[1].resize(size), "PNG")
    for seed in range(5):
        exact, fast = load(encoded, seed, exact=True), load(encoded, seed)
        assert fast["img"].shape == (SIZE, SIZE, 3)
        assert np.abs(fast["img"].astype(int) - exact["img"]).max() <= 2


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_exif_orientation_is_applied_at_full_size(photographs, orientation):
    encoded = encode(photographs[2], exif=exif(orientation))
    assert jpeg_size(encoded) is None
    assert jpeg_size(encoded, rotation=0) == (400, 600), "a data set's rotation stands in place of the EXIF"
    exact, fast = load(encoded, 3, exact=True), load(encoded, 3)
    assert psnr(fast["img"], exact["img"]) > 60
    assert fast["ori_shape"] == ((600, 400) if orientation > 4 else (400, 600))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_data_sets_rotation_is_applied(photographs, rotation):
    encoded, extra = encode(photographs[2], exif=exif(6)), {"rotation": rotation}
    exact, fast = load(encoded, 3, extra, exact=True), load(encoded, 3, extra)
    assert psnr(fast["img"], exact["img"]) > 60
    assert fast["ori_shape"] == ((400, 600) if rotation == 180 else (600, 400))


def test_upright_exif_does_not_hinder(photographs):
    assert jpeg_size(encode(photographs[0], exif=exif(1))) == (512, 512)
    assert jpeg_size(encode(photographs[0], "PNG")) is None
    assert jpeg_size(b"\xff\xd8\xff") is None and jpeg_size(b"") is None


def test_cmyk_is_decoded_at_full_size(photographs):
    encoded = encode(photographs[0].convert("CMYK"))
    assert jpeg_size(encoded) is None
    exact, fast = load(encoded, 1, exact=True), load(encoded, 1, oversampling=1.0)
    assert psnr(fast["img"], exact["img"]) > 60


@pytest.mark.parametrize("exact", [True, False])
def test_broken_files_meet_the_policy(tmp_path, photographs, exact):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encode(photographs[0])[:20000])
    with pytest.raises(DataError, match=r"cut\.jpg.*truncated"):
        LoadImageRandomResizedCrop(exact=exact, **OPTIONS)({"img_path": str(path)})
    step = LoadImageRandomResizedCrop(exact=exact, on_broken="skip", max_broken=1, **OPTIONS)
    assert step({"img_path": str(path)}) is None and len(step.broken) == 1
    with pytest.raises(DataError, match=r"absent\.jpg"):
        step({"img_path": str(tmp_path / "absent.jpg")})


def test_a_file_and_a_member_are_the_same(tmp_path, photographs):
    encoded = encode(photographs[1])
    (tmp_path / "a.jpg").write_bytes(encoded)
    np.random.seed(0)
    step = pickle.loads(pickle.dumps(LoadImageRandomResizedCrop(**OPTIONS)))  # as a started worker gets it
    assert np.array_equal(step({"img_path": str(tmp_path / "a.jpg")})["img"], load(encoded)["img"])


def test_bad_oversampling_is_refused():
    for value in (0.5, float("nan")):
        with pytest.raises(ConfigError, match="oversampling"):
            LoadImageRandomResizedCrop(scale=224, oversampling=value)


def test_resizing_is_pillows_for_any_box():
    rng = np.random.default_rng(0)
    # no value overshoots the range: Pillow and torch pass over rows and columns in different order and clip in between
    image = rng.integers(64, 192, (90, 120, 3), dtype=np.uint8)
    for box in ((0, 0, 90, 120), (1, 3, 80, 33), (5, 5, 1, 1), (40, 0, 7, 120)):
        top, left, height, width = box
        crop = Image.fromarray(image[top : top + height, left : left + width])
        expected = np.asarray(crop.resize((48, 32), Image.Resampling.BICUBIC))
        found = resize_crop(image, box, (32, 48))
        # one rounding for each direction
        assert np.abs(found.astype(int) - expected).max() <= 2
        assert found.transpose(2, 0, 1).flags.c_contiguous


def test_checks_know_how_many_broken_files_it_tolerates():
    config = Config.fromfile(configs_dir() / "_base_/datasets/imagenet_pretrain.py")
    (dataset,) = plain_datasets(config.train_dataloader.dataset)
    assert dataset.max_broken == 100
    config.train_dataloader.dataset.pipeline[0].on_broken = "error"
    (dataset,) = plain_datasets(config.train_dataloader.dataset)
    assert dataset.max_broken == 0


def test_full_size_configs_use_it_and_give_planes_of_bytes(photographs):
    config = Config.fromfile(configs_dir() / "_base_/datasets/imagenet_pretrain.py")
    pipeline = Compose([TRANSFORMS.build(step) for step in config.train_pipeline])
    assert isinstance(pipeline.transforms[0], LoadImageRandomResizedCrop) and not pipeline.transforms[0].exact
    config.train_pipeline[0].exact = True
    exact_pipeline = Compose([TRANSFORMS.build(step) for step in config.train_pipeline])
    flips = set()
    for seed in range(8):
        results = []
        for one in (pipeline, exact_pipeline):
            np.random.seed(seed)
            results.append(one({"img_path": "a.jpg", "img_source": Member(encode(photographs[0]))}))
        fast, exact = (result["inputs"] for result in results)
        assert fast.shape == (3, 224, 224) and fast.dtype == torch.uint8 and fast.is_contiguous()
        assert psnr(fast.numpy(), exact.numpy()) > 60
        flips.add(results[0]["data_samples"].flip)
        assert results[0]["data_samples"].flip == results[1]["data_samples"].flip
    assert flips == {True, False}
