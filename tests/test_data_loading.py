import copy
import io
import logging
import pickle

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from torch.utils.data import DataLoader

import emae_mm.registry  # noqa: F401 - before mmdet and mmseg: it stands in for mmcv's compiled operators
from emae_mm.data.decoding import BrokenImage, decode_image
from emae_mm.data.loading import BrokenFiles, LoadImage
from emae_mm.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Smooth, so that lossy formats stay within a few grey levels."""
    y, x = np.mgrid[:40, :56]
    return Image.fromarray(np.stack([4 * x, 5 * y, 255 - 2 * x - 2 * y], -1).astype(np.uint8))


def encode(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def load(path, **options) -> dict:
    return LoadImage(**options)({"img_path": str(path)})


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
def test_decodes_what_pillow_wrote(picture, format):
    array = decode_image(encode(picture, format))
    assert array.shape == (40, 56, 3) and array.dtype == np.uint8
    # lossy formats and GIF's palette: a few levels on average
    assert np.abs(array[..., ::-1].astype(int) - np.asarray(picture)).mean() < 6


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("RGBA", "PNG")]
)
def test_every_mode_becomes_three_channels_as_in_pillow(picture, mode, format):
    converted = picture.convert(mode)
    array = decode_image(encode(converted, format))
    reference = np.asarray(converted.convert("RGB")).astype(int)
    # only JPEG loses anything here
    assert np.abs(array[..., ::-1].astype(int) - reference).max() <= (6 if format == "JPEG" else 0)


def test_cmyk_jpeg(picture):
    array = decode_image(encode(picture.convert("CMYK"), "JPEG", quality=95))
    # lossy in four channels
    assert np.abs(array[..., ::-1].astype(int) - np.asarray(picture)).mean() < 6


def test_sixteen_bits_keep_their_upper_byte():
    deep = np.arange(0, 65536, 97, dtype=np.uint16)[:676].reshape(26, 26)
    array = decode_image(encode(Image.fromarray(deep), "PNG"))
    # libpng rounds where dividing by 256 truncates
    assert array.shape == (26, 26, 3) and np.abs(array[..., 0].astype(int) - deep // 256).max() <= 1


def test_same_result_as_mmcv(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / "turned.jpg"
    path.write_bytes(encode(picture, "JPEG", exif=exif))
    for options in ({}, {"to_float32": True}, {"color_type": "grayscale"}, {"color_type": "unchanged"}):
        ours, theirs = load(path, **options), LoadImageFromFile(**options)({"img_path": str(path)})
        assert ours["img"].dtype == theirs["img"].dtype
        assert np.array_equal(ours["img"], theirs["img"])
        assert ours["img_shape"] == theirs["img_shape"] and ours["ori_shape"] == theirs["ori_shape"]
    assert load(path)["img_shape"] == (56, 40)
    assert load(path, color_type="color_ignore_orientation")["img_shape"] == (40, 56)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_truncated_files_are_broken(picture, format, part):
    data = encode(picture.resize((400, 300)), format)
    with pytest.raises(BrokenImage):
        decode_image(data[: int(part * len(data))])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"thumbnail": True}, {"padded": True}])
def test_truncated_jpegs_of_all_kinds(picture, options):
    """Decoders may fill the rest with grey; neither a thumbnail's end marker nor zero padding may hide it."""
    large = picture.resize((400, 300))
    data = encode(large, "JPEG", progressive=options.get("progressive", False))
    if options.get("thumbnail"):
        small = encode(picture, "JPEG")
        segment = b"Exif\0\0" + small
        data = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
        assert decode_image(data).shape == (300, 400, 3)
    broken = data[: int(0.7 * len(data))]
    if options.get("padded"):
        broken += bytes(len(data) - len(broken))
    with pytest.raises(BrokenImage, match="truncated"):
        decode_image(broken)


def test_data_after_the_end_of_a_jpeg_is_harmless(picture):
    data = encode(picture, "JPEG")
    assert np.array_equal(decode_image(data + b"appended by a camera"), decode_image(data))


def test_error_policy_names_the_file_and_the_reason(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").touch()
    for name, reason in (("text.jpg", "no image"), ("empty.jpg", "empty"), ("absent.jpg", "cannot be read")):
        with pytest.raises(DataError, match=reason) as caught:
            load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_options_are_checked():
    for options in ({"on_broken": "ignore"}, {"color_type": "rgb"}, {"max_broken": -1}):
        with pytest.raises(ConfigError):
            LoadImage(**options)


def loader(paths, step, workers=0, context=None) -> DataLoader:
    """Applies ``step`` in the workers, with nothing that a spawned process could not import."""
    items = [{"img_path": str(path)} for path in paths]
    return DataLoader(
        items,
        batch_size=None,
        collate_fn=step,
        num_workers=workers,
        multiprocessing_context=context if workers else None,
    )


@pytest.fixture
def folder(tmp_path, picture):
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for index, path in enumerate(paths):
        data = encode(picture, "PNG")
        path.write_bytes(data[: len(data) // 2] if index in (3, 5, 8) else data)
    return paths


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork"), (2, "spawn")])
def test_skipped_files_are_counted_once_over_workers_and_epochs(folder, workers, context):
    step = LoadImage(on_broken="skip", max_broken=3)
    batches = loader(folder, copy.deepcopy(step), workers, context)  # mmengine copies pipelines freely
    for _ in range(2):
        assert sum(result is None for result in batches) == 3
    assert len(step.broken) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_one_broken_file_too_many_stops_the_run(folder, workers):
    batches = loader(folder, LoadImage(on_broken="skip", max_broken=2), workers)
    with pytest.raises(DataError, match="more than max_broken=2") as caught:
        list(batches)
    assert any(str(folder[index]) in str(caught.value) for index in (3, 5, 8))


def test_one_warning_a_file_with_the_running_count(folder, caplog):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance("test-data-loading")
    logger.addHandler(caplog.handler)
    step = LoadImage(on_broken="skip")
    for _ in range(3):
        for path in folder:
            step({"img_path": str(path)})
    logger.removeHandler(caplog.handler)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 3
    assert str(folder[8]) in warnings[2] and "broken file 3 of at most 100" in warnings[2]


def test_the_count_survives_pickling():
    broken = BrokenFiles(4)
    assert broken.add("a") and not broken.add("a") and broken.add("b")
    loaded = pickle.loads(pickle.dumps(broken))
    assert len(loaded) == 2 and not loaded.add("b") and loaded._table.is_shared()


def test_usable_in_the_pipelines_of_all_three_libraries(tmp_path, picture):
    from mmdet.registry import TRANSFORMS as DETECTION
    from mmpretrain.registry import TRANSFORMS as CLASSIFICATION
    from mmseg.registry import TRANSFORMS as SEGMENTATION

    path = tmp_path / "image.png"
    picture.save(path)
    expected = cv2.imread(str(path))
    for registry in (CLASSIFICATION, DETECTION, SEGMENTATION):
        step = registry.build(dict(type="emae_mm.LoadImage"))
        assert np.array_equal(step({"img_path": str(path)})["img"], expected)


def test_reads_through_a_file_backend(folder, picture):
    options = {"backend_args": {"backend": "local"}}
    assert np.array_equal(load(folder[0], **options)["img"], load(folder[0])["img"])
    with pytest.raises(DataError, match="cannot be read"):
        load(folder[0].with_name("absent.png"), **options)
    assert torch.from_numpy(load(folder[0])["img"]).shape == (40, 56, 3)
