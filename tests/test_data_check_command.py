"""``emae-mm data check``: counts, sizes, every broken file, exit status."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from tar_shards import write_shards
from typer.testing import CliRunner

from emae_mm import cli
from emae_mm.data.checks import Inspection, check_dataset
from emae_mm.data.checks.layouts import LAYOUTS
from emae_mm.errors import DataError


def save(path, size=(16, 12), mode="RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 2, (size[1], size[0]), dtype=np.uint8)
    (Image.fromarray(pixels) if mode == "L" else Image.fromarray(pixels * 255).convert(mode)).save(path)


def cut(path) -> str:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return str(path)


@pytest.fixture
def imagenet(tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            save(tmp_path / split / "ab"[number % 2] / f"{number}.jpg", (16 + number, 12))
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    images = [dict(id=n, file_name=f"{n}.jpg", width=16, height=12) for n in range(4)]
    for image in images:
        save(tmp_path / "val2017" / image["file_name"])
    boxes = [dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0)]
    content = dict(images=images, annotations=boxes, categories=[dict(id=1, name="cat")])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def ade20k(tmp_path):
    for name in "abc":
        save(tmp_path / f"images/training/{name}.jpg")
        save(tmp_path / f"annotations/training/{name}.png", mode="L")
    (tmp_path / "classes.json").write_text(json.dumps(["one", "two"]))
    return tmp_path


@pytest.fixture
def openimages(tmp_path):
    for number in range(3):
        save(tmp_path / f"train_{number}/{number}0.jpg")
    with open(tmp_path / "train-images-boxable-with-rotation.csv", "w", newline="") as file:
        csv.writer(file).writerows([["ImageID", "Subset"], *([f"{number}0", "train"] for number in range(3))])
    with open(tmp_path / "train-annotations-bbox.csv", "w", newline="") as file:
        csv.writer(file).writerows([["ImageID", "LabelName"], ["00", "/m/01"]])
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    save(tmp_path / "x/1.png", (9, 9))
    save(tmp_path / "2.webp")
    return tmp_path


@pytest.fixture
def shards(tmp_path):
    write_shards(tmp_path, (2, 0, 5))
    return tmp_path


COUNTS = {
    "imagenet": ["train: imagefolder .*: 6 images, 2 classes", "val: imagefolder .*: 2 images, 2 classes",
                 "decoded 6 of 6: width 16 to 21, height 12 to 12"],
    "coco": ["val2017: coco .*: 4 images, 1 annotations, 1 classes", "decoded 4 of 4: width 16 to 16, height 12 to 12"],
    "ade20k": ["training: ade20k .*: 3 images, 3 label maps, 2 classes", "decoded 3 of 3: .*most often 16x12"],
    "openimages": ["train: openimages .*: 3 images", "decoded 3 of 3"],
    "folder": ["images: imagefolder .*: 2 images", "width 9 to 16, height 9 to 12"],
    "shards": ["shards: shards .*: 7 images, 3 shards", "decoded 7 of 7: width 20", "without an image: s-1.tar"],
}  # fmt: skip


def run(root, layout, *options):
    """What the command does; its standard output alone, since loggers may still hold an earlier test's streams."""
    return CliRunner().invoke(cli.app, ["data", "check", str(root), "--as", layout, *options])


def test_the_command_line_offers_every_layout():
    assert [layout.value for layout in cli.Layout] == list(LAYOUTS) == list(COUNTS)


@pytest.mark.parametrize("layout", list(COUNTS))
def test_whole_data(layout, request):
    root = request.getfixturevalue(layout)
    done = run(root, layout, "--all")
    assert done.exit_code == 0, done.stdout
    for line in COUNTS[layout]:
        assert re.search(line, done.stdout), (line, done.stdout)
    assert done.stdout.rstrip().endswith("nothing is broken")


@pytest.mark.parametrize("layout", list(COUNTS))
def test_every_broken_file_is_named(layout, request):
    """Cut in half one image a data set, remove another, and what each layout can have beside."""
    root = request.getfixturevalue(layout)
    faults = {
        "imagenet": lambda: [cut(root / "train/a/0.jpg"), cut(root / "train/b/1.jpg"), cut(root / "val/a/0.jpg")],
        "coco": lambda: [cut(root / "val2017/1.jpg"), _remove(root / "val2017/3.jpg"), _resize(root / "val2017/0.jpg")],
        "ade20k": lambda: [cut(root / "images/training/b.jpg"), _remove(root / "annotations/training/c.png"),
                           _paint(root / "annotations/training/a.png")],
        "openimages": lambda: [cut(root / "train_0/00.jpg"), _remove(root / "train_2/20.jpg")],
        "folder": lambda: [cut(root / "x/1.png")],
        "shards": lambda: _damage_shards(root),
    }[layout]()  # fmt: skip
    done = run(root, layout, "--all", "--report", str(root / "report.txt"))
    assert done.exit_code == 1, done.stdout
    for name in faults:
        assert sum(name in line for line in done.stdout.splitlines() if "broken:" in line) == 1, (name, done.stdout)
    assert re.search(rf"^{len(faults)} faults? in {root}$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith((root / "report.txt").read_text())


def _remove(path) -> str:
    path.unlink()
    return str(path)


def _resize(path) -> str:
    save(path, (10, 12))
    return str(path)


def _paint(path) -> str:
    Image.fromarray(np.full((12, 16), 9, np.uint8)).save(path)
    return str(path)


def _damage_shards(root) -> list[str]:
    write_shards(root, (2, 0, 5), broken=[0, 4])
    (root / "s-1.tar").write_bytes(b"no tar file" * 100)
    return [f"{root / 's-0.tar'}:image0000.jpg", f"{root / 's-2.tar'}:image0004.jpg", str(root / "s-1.tar")]


def test_more_faults_than_a_message_shows(imagenet):
    names = []
    for number in range(20):
        save(imagenet / f"train/a/more{number}.jpg")
        names.append(cut(imagenet / f"train/a/more{number}.jpg"))
    done = run(imagenet, "imagenet", "--all", "--workers", "3")
    assert done.exit_code == 1 and all(name in done.stdout for name in names)


def test_faults_of_annotations_are_all_named(coco):
    path = coco / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    box = content["annotations"][0]
    content["annotations"] = [box | dict(id=number, category_id=70 + number) for number in range(9)]
    path.write_text(json.dumps(content))
    done = run(coco, "coco")
    assert done.exit_code == 1 and all(f"annotation {number}: {70 + number}" in done.stdout for number in range(9))


def test_a_sample_is_decoded_unless_all_are_asked_for(imagenet):
    assert "decoded 2 of 6" in run(imagenet, "imagenet", "--sample", "2").stdout
    assert "  decoded" not in run(imagenet, "imagenet", "--sample", "0").stdout


@pytest.mark.parametrize("layout", list(COUNTS))
def test_another_layout_is_one_clear_error(layout, tmp_path, capsys, monkeypatch):
    (tmp_path / "something").mkdir()
    for path in (tmp_path / "absent", tmp_path):
        monkeypatch.setattr("sys.argv", ["emae-mm", "data", "check", str(path), "--as", layout])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        output = capsys.readouterr()
        text = output.out + output.err
        assert exit.value.code in (1, 2) and str(path) in text and "fix:" in text and "Traceback" not in text


def test_pattern_of_shards(shards):
    done = run(shards / "s-{0..1}.tar", "shards", "--all")
    assert done.exit_code == 0 and "2 images, 2 shards" in done.stdout


def test_threads_decode_in_order_and_report_progress(imagenet):
    seen = []
    dataset = LAYOUTS["imagenet"](str(imagenet))["train"]
    inspection = Inspection(None, workers=4, progress=lambda done, total: seen.append((done, total)))
    report = check_dataset(dataset, inspection)
    assert seen == [(number, 6) for number in range(1, 7)] and report.sampled == 6
    cut(imagenet / "train/a/0.jpg")
    with pytest.raises(DataError, match="of 6 sampled images some cannot be used"):
        check_dataset(dataset, inspection)


def test_real_data(shared):
    data = shared / "data"
    for name, layout in (("imagenet_tiny", "imagenet"), ("coco_mini", "coco"), ("camvid", "ade20k")):
        done = run(data / name, layout, "--sample", "20")
        assert done.exit_code == 0, done.stdout
    assert "train: imagefolder" in run(data / "imagenet_tiny", "imagenet", "--sample", "0").stdout
