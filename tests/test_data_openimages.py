"""OpenImages in its own layout: lists, folders, rotation."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emae_mm.data.checks import Inspection, check_config_data, check_dataset
from emae_mm.data.openimages import ListedImage, read_image_list
from emae_mm.errors import DataError
from emae_mm.registry import DATASETS

LIST = "train-images-boxable-with-rotation.csv"
COLUMNS = ["ImageID", "Subset", "OriginalURL", "Author", "Title", "Rotation"]
ROWS = [
    ["000002b66c9c498e", "train", "https://host/a.jpg", "A, B", 'a "title"', "0.0"],
    ["a00002b97e5471a0", "train", "", "", "two\nlines", "90.0"],
    ["f00002c707c9895e", "train", "", "", "", ""],
    ["000595fe6fee6369", "validation", "", "", "", "270.0"],
]
LOAD = [dict(type="emae_mm.LoadImage")]
ORIENTATION = 0x0112


def corner(turn: int) -> np.ndarray:
    """A bright upper left quarter of a wide image, turned ``turn`` times counterclockwise."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:10, :15] = 250
    return np.rot90(image, turn)


def write_list(path: Path, rows=ROWS, columns=COLUMNS) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def save(path: Path, turn: int = 0, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(corner(turn)).save(path, quality=95, **options)


@pytest.fixture
def folder(tmp_path):
    write_list(tmp_path / LIST)
    for name in ("train_0/000002b66c9c498e", "train_a/a00002b97e5471a0", "train_f/f00002c707c9895e"):
        save(tmp_path / f"{name}.jpg")
    save(tmp_path / "validation/000595fe6fee6369.jpg")
    return tmp_path


def config(root, **options) -> dict:
    return dict(type="emae_mm.OpenImages", data_root=str(root), pipeline=LOAD) | options


def test_training_images_in_sixteen_folders(folder):
    found = read_image_list(folder / LIST, folder, "train")
    assert found == [
        ListedImage("train_0/000002b66c9c498e.jpg", 0),
        ListedImage("train_a/a00002b97e5471a0.jpg", 90),
        ListedImage("train_f/f00002c707c9895e.jpg", None),
    ]
    assert len(DATASETS.build(config(folder))) == 3


def test_training_images_in_one_folder(tmp_path):
    write_list(tmp_path / LIST)
    (tmp_path / "images/train").mkdir(parents=True)
    assert [image.name for image in read_image_list(tmp_path / LIST, tmp_path / "images", "train")] == [
        "train/000002b66c9c498e.jpg", "train/a00002b97e5471a0.jpg", "train/f00002c707c9895e.jpg"
    ]  # fmt: skip
    data = DATASETS.build(config(tmp_path, data_prefix="images"))
    assert data.get_data_info(0)["img_path"] == str(tmp_path / "images/train/000002b66c9c498e.jpg")


def test_subsets(folder):
    assert [image.name for image in read_image_list(folder / LIST, folder, "validation")] == [
        "validation/000595fe6fee6369.jpg"
    ]
    assert len(read_image_list(folder / LIST, folder)) == 4, "without a subset all of the column's"


def test_lists_without_the_optional_columns(folder):
    write_list(folder / "validation-images.csv", [["000595fe6fee6369"]], ["ImageID"])
    assert read_image_list(folder / "validation-images.csv", folder) == [
        ListedImage("validation/000595fe6fee6369.jpg", None)
    ]
    write_list(folder / "mine.csv", [["000002b66c9c498e", "180"]], ["ImageID", "Rotation"])
    assert read_image_list(folder / "mine.csv", folder, "train") == [ListedImage("train_0/000002b66c9c498e.jpg", 180)]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([["x", "train"]], ["Id", "Subset"], "no list of images: its columns are"),
        ([["x", "/m/01", "1"]], ["ImageID", "LabelName", "Confidence"], "no list of images"),
        ([], COLUMNS, "lists no image of subset 'train'"),
        ([ROWS[3]], COLUMNS, "lists no image of subset 'train'"),
        ([ROWS[0], ROWS[0]], COLUMNS, r"there twice, .*: line 3 \(ImageID '000002b66c9c498e'"),
        ([[*ROWS[0][:5], "45"]], COLUMNS, r"rotation: line 2 .*Rotation '45'"),
        ([ROWS[0][:3]], COLUMNS, "line 2: 3 columns, not 6"),
    ],
)
def test_list_errors(folder, rows, columns, message):
    write_list(folder / LIST, rows, columns)
    with pytest.raises(DataError, match=message):
        DATASETS.build(config(folder))


def test_absent_list_and_unknown_subset(folder):
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        DATASETS.build(config(folder, ann_file="absent.csv"))
    with pytest.raises(DataError, match="no subset 'val'"):
        DATASETS.build(config(folder, subset="val"))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_images_are_turned_upright(folder, degrees):
    """An image stored turned clockwise is upright after turning it counterclockwise by as much."""
    name = "000002b66c9c498e"
    write_list(folder / LIST, [[name, "train", "", "", "", f"{degrees}.0"]])
    save(folder / f"train_0/{name}.jpg", turn=-degrees // 90)
    loaded = DATASETS.build(config(folder))[0]
    assert loaded["img_shape"] == (20, 30) == loaded["img"].shape[:2] and loaded["img"].flags.c_contiguous
    # JPEG of two grey levels: the edge rings
    assert np.abs(loaded["img"].astype(int) - corner(0)).mean() < 3
    plain = DATASETS.build(config(folder, apply_rotation=False))[0]
    assert np.abs(plain["img"].astype(int) - corner(-degrees // 90)).mean() < 3


def test_exif_orientation_does_not_turn_a_second_time(folder):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown turned clockwise by 90 degrees
    name = "000002b66c9c498e"
    save(folder / f"train_0/{name}.jpg", turn=1, exif=exif)
    for rotation in ("270.0", ""):  # as the list says, or, where it says nothing, as the file does
        write_list(folder / LIST, [[name, "train", "", "", "", rotation]])
        assert np.abs(DATASETS.build(config(folder))[0]["img"].astype(int) - corner(0)).mean() < 3, rotation


def test_check_before_a_run(folder):
    cfg = dict(train_dataloader=dict(dataset=config(folder)))
    (report,) = check_config_data(cfg)
    assert (report.kind, report.images, report.sampled, report.notes) == ("openimages", 3, 3, [])
    assert set(report.sizes) == {(20, 30)}


def test_missing_images(folder):
    (folder / "train_a/a00002b97e5471a0.jpg").unlink()
    with pytest.raises(DataError, match=r"not under .*: train_a/a00002b97e5471a0\.jpg \(1 in all\)"):
        check_dataset(config(folder))
    skip = [dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=1)]
    report = check_dataset(config(folder, pipeline=skip))
    assert report.notes == [
        f"images of {LIST} are missing and will be skipped: train_a/a00002b97e5471a0.jpg (1 in all)"
    ]
    np.random.seed(0)
    assert DATASETS.build(config(folder, pipeline=skip))[1]["img_path"].endswith(("498e.jpg", "895e.jpg"))
    report = check_dataset(config(folder), Inspection(collect=True))
    assert report.broken == [f"{folder / 'train_a/a00002b97e5471a0.jpg'}: it is missing"] and report.sampled == 2
    for path in folder.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="3 in all"):
        check_dataset(config(folder, pipeline=[dict(LOAD[0], on_broken="skip", max_broken=9)]))
