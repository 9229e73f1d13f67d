import copy
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from emae_mm.data.checks import Inspection, check_config_data, check_dataset
from emae_mm.data.checks.coco_masks import run_lengths
from emae_mm.errors import DataError


def truncate(path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def save(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(*shape) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val"):
        for name in ("a/1.jpg", "a/2.png", "b/3.jpg"):
            save(tmp_path / split / name, noise(12, 16, 3))
    save(tmp_path / "train/b/grey.jpg", noise(12, 16))
    Image.fromarray(noise(12, 16)).convert("P").save(tmp_path / "train/b/palette.png")
    return tmp_path


def folder_config(root, split="train", **options) -> dict:
    return dict(type="emae_mm.ImageFolder", data_root=str(root), data_prefix=split, **options)


SKIP = [dict(type="emae_mm.LoadImage", on_broken="skip")]


def test_imagefolder_report(folder):
    report = check_dataset(folder_config(folder), num_classes=2)
    assert (report.kind, report.images, report.classes, report.sampled) == ("imagefolder", 5, ("a", "b"), 5)
    assert not report.notes and "5 images, 2 classes" in str(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(data_root="/absent"), "data root /absent does not exist"),
        (dict(data_prefix="absent"), "absent does not exist"),
        (dict(data_prefix="empty"), "holds no image"),
        (dict(data_prefix="train/a"), "no class folders"),
        (dict(metainfo=dict(classes=["a"])), "2 classes, but 1 classes are named"),
        (dict(ann_file="absent.txt"), "absent.txt does not exist"),
    ],
)
def test_imagefolder_errors(folder, change, message):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        check_dataset(folder_config(folder) | change)


def test_imagefolder_of_another_number_of_classes(folder):
    with pytest.raises(DataError, match="2 classes, but 1000 classes are what the model has"):
        check_dataset(folder_config(folder), num_classes=1000)


def test_imagefolder_notes(folder):
    (folder / "train/c").mkdir()
    save(folder / "train/loose.jpg", noise(12, 16, 3))
    report = check_dataset(folder_config(folder))
    assert report.images == 5 and len(report.notes) == 2
    assert check_dataset(folder_config(folder, with_label=False)).images == 6


def test_imagefolder_lists(folder):
    (folder / "list.txt").write_text("a/1.jpg 0\nb/3.jpg 2\n")
    assert check_dataset(folder_config(folder, ann_file="list.txt")).images == 2
    with pytest.raises(DataError, match=r"outside 0\.\.1: 'b/3\.jpg 2' \(1 in all\)"):
        check_dataset(folder_config(folder, ann_file="list.txt"), num_classes=2)
    (folder / "list.txt").write_text("a/1.jpg 0\nb/9.jpg 1\n")
    with pytest.raises(DataError, match=r"not under .*: b/9\.jpg"):
        check_dataset(folder_config(folder, ann_file="list.txt"))
    (folder / "list.txt").write_text("a/1.jpg zero\n")
    with pytest.raises(DataError, match="not of the form"):
        check_dataset(folder_config(folder, ann_file="list.txt"))


def test_broken_images_by_policy(folder):
    truncate(folder / "train/a/1.jpg")
    (folder / "train/b/3.jpg").write_text("no image")
    with pytest.raises(DataError, match="2 in all") as caught:
        check_dataset(folder_config(folder))
    assert "a/1.jpg: the JPEG is truncated" in str(caught.value) and "b/3.jpg: it is no image" in str(caught.value)
    report = check_dataset(folder_config(folder, pipeline=SKIP))
    assert len(report.notes) == 1 and "2 in all" in report.notes[0]
    for path in (folder / "train").rglob("*.*"):
        path.write_text("no image")
    with pytest.raises(DataError, match="5 in all"):  # nothing would be left to train on
        check_dataset(folder_config(folder, pipeline=SKIP))


def test_the_sample_is_bounded_and_repeatable(folder):
    for index in range(30):
        save(folder / f"train/a/{index}.png", noise(4, 4, 3))
    truncate(folder / "train/a/7.png")
    found = []
    for seed in range(8):
        try:
            assert check_dataset(folder_config(folder), Inspection(sample=10, seed=seed)).sampled == 10
            found.append(False)
        except DataError:
            found.append(True)
    assert 0 < sum(found) < 8  # one of 35 images, 10 of them drawn: seen by some seeds only


@pytest.fixture
def coco(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        save(tmp_path / "images" / name, noise(30, 40, 3))
    square = [[2, 2, 11, 2, 11, 10, 2, 10]]
    write_coco(
        tmp_path,
        dict(
            images=[dict(id=number, file_name=f"{number}.jpg", width=40, height=30) for number in (1, 2)],
            annotations=[
                dict(id=number, image_id=1 + number % 2, category_id=5, bbox=[2, 2, 9, 8], area=72, segmentation=square)
                for number in range(1, 5)
            ],
            categories=[dict(id=5, name="cup"), dict(id=9, name="dog")],
        ),
    )
    return tmp_path


def write_coco(root, content) -> None:
    (root / "instances.json").write_text(json.dumps(content))


def coco_config(root, with_mask=True) -> dict:
    return dict(
        type="CocoFormatDataset",
        data_root=str(root),
        ann_file="instances.json",
        data_prefix=dict(img="images/"),
        pipeline=[dict(type="LoadImage"), dict(type="LoadAnnotations", with_bbox=True, with_mask=with_mask)],
    )


def test_coco_report(coco):
    report = check_dataset(coco_config(coco), num_classes=2)
    assert (report.kind, report.images, report.annotations, report.classes) == ("coco", 2, 4, ("cup", "dog"))
    assert "4 annotations" in str(report)


def edit(path, value):
    """A change of one place in the annotation file; ``DELETE`` takes the key out."""

    def change(content: dict) -> None:
        target = content
        for key in path[:-1]:
            target = target[key]
        if value is DELETE:
            del target[path[-1]]
        else:
            target[path[-1]] = value

    return change


DELETE = object()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(["annotations"], DELETE), "not a COCO file: the key 'annotations' is missing"),
        (edit(["categories"], {}), "the key 'categories' is missing or no list"),
        (edit(["images"], []), "lists no image"),
        (edit(["images", 1, "width"], DELETE), r"'images' without the key 'width', at the positions: 1 \(1 in all\)"),
        (edit(["annotations", 2, "area"], DELETE), r"'annotations' without the key 'area', at the positions: 2"),
        (edit(["annotations", 0, "image_id"], 77), r"image_id that is not in 'images': annotation 1: 77 \(1 in all\)"),
        (edit(["annotations", 0, "category_id"], 1), "category_id that is not in 'categories': annotation 1: 1"),
        (edit(["annotations", 0, "id"], 2), r"ids that several annotations have: 2"),
        (edit(["images", 0, "id"], 2), r"ids that several images have: 2"),
        (edit(["annotations", 0, "bbox"], [1, 2, 3]), r"not \[x, y, width, height\], in the annotations: 1"),
        (edit(["annotations", 3, "bbox"], [2, 2, -3, 8]), r"negative or infinite size: annotation 4 \[2, 2, -3, 8\]"),
        (edit(["annotations", 3, "bbox"], [2, 2, 0, 8]), "boxes without area: annotation 4"),
        (edit(["annotations", 3, "bbox"], [2, 2, 39.5, 8]), "1 px outside their image: annotation 4 .* of 40x30"),
        (edit(["annotations", 3, "bbox"], [-2, 2, 9, 8]), "1 px outside their image: annotation 4"),
        (
            edit(["annotations", 1, "segmentation"], DELETE),
            r"without a 'segmentation', .*: annotation 2 .* 1 \(1\.jpg\)",
        ),
        (edit(["annotations", 1, "segmentation"], []), r"without a 'segmentation', .*: annotation 2 .*\(1 in all\)"),
        (edit(["annotations", 1, "segmentation"], [[]]), r"annotation 2 .*\(1\.jpg\): a polygon of 0 numbers"),
        (
            edit(["annotations", 0, "segmentation", 0], [1, 1, 5, 5]),
            r"annotation 1 .*\(2\.jpg\): a polygon of 4 numbers",
        ),
        (edit(["annotations", 0, "segmentation", 0], [1, 1, 5, 5, 5, 1, 3]), "at least three corners: .* of 7 numbers"),
        (
            edit(["annotations", 0, "segmentation"], [1, 1, 5, 5, 5, 1]),
            "neither polygons nor run lengths: annotation 1",
        ),
        (edit(["annotations", 0, "segmentation"], dict(size=[30, 40])), r"annotation 1 .* with the keys \['size'\]"),
        (
            edit(["annotations", 1, "segmentation"], dict(size=[40, 30], counts="0")),
            r"annotation 2 .*is \[40, 30\], the",
        ),
        (
            edit(["annotations", 1, "segmentation"], dict(size=[30, 40], counts=[9, 9])),
            "'counts' make 18 pixels, .* 1200",
        ),
        (edit(["annotations", 1, "segmentation"], dict(size=[30, 40], counts=[1300, -100])), "'counts' cannot be read"),
        (edit(["annotations", 1, "segmentation"], dict(size=[30, 40], counts="P")), "'counts' cannot be read"),
        (edit(["annotations", 1, "segmentation"], dict(size=[30, 40], counts="a b")), "'counts' cannot be read"),
        (edit(["images", 0, "file_name"], "9.jpg"), r"not under .*images: 9\.jpg"),
        (edit(["images", 0, "height"], 31), r"another \(width, height\) .*1\.jpg is \(40, 30\), not \(40, 31\)"),
    ],
)
def test_coco_errors(coco, change, message):
    content = json.loads((coco / "instances.json").read_text())
    change(content)
    write_coco(coco, content)
    with pytest.raises(DataError, match=message):
        check_dataset(coco_config(coco))


def test_coco_tolerates_what_coco_itself_has(coco):
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"][0]["bbox"] = [-0.5, 2, 41, 8]  # within a pixel of the border
    many = [dict(content["annotations"][1], id=100 + index) for index in range(10_000)]
    content["annotations"] += many
    content["annotations"][5]["bbox"] = [2, 2, 9, 0]
    write_coco(coco, content)
    report = check_dataset(coco_config(coco))
    assert len(report.notes) == 1 and "1 in all" in report.notes[0]


def test_run_lengths_are_read_as_pycocotools_reads_them():
    rng = np.random.default_rng(0)
    for height, width, share in [(30, 40, 0.5), (5, 1000, 0.01), (400, 300, 0.999), (7, 9, 0.0), (8, 8, 1.0)]:
        mask = rng.random((height, width)) < share
        text = rle.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        counts = run_lengths(text)
        assert counts.sum() == height * width
        values = np.arange(len(counts)) % 2
        np.testing.assert_array_equal(np.repeat(values, counts).reshape(width, height).T, mask)
        np.testing.assert_array_equal(run_lengths(counts.tolist()), counts)


def test_coco_tolerates_few_short_polygons(coco):
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"] += [dict(content["annotations"][1], id=100 + index) for index in range(10_000)]
    content["annotations"][7]["segmentation"] = [[2, 2, 11, 2, 11, 10], [1, 1, 2, 2]]
    write_coco(coco, content)
    (note,) = check_dataset(coco_config(coco)).notes
    assert "less than three corners" in note and "(1 in all)" in note


def test_coco_masks_matter_where_an_evaluator_compares_them(coco):
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"][0]["segmentation"] = []
    write_coco(coco, content)
    loader = dict(dataset=coco_config(coco, with_mask=False))
    config = dict(val_dataloader=loader, val_evaluator=dict(type="CocoMetric", metric="bbox"))
    check_config_data(config)
    for metric in ("segm", ["bbox", "segm"]):
        config["val_evaluator"] = [dict(type="CocoMetric", metric=metric)]
        with pytest.raises(DataError, match=r"annotation 1 of image 2 \(2\.jpg\)"):
            check_config_data(config)


def test_coco_offenders_are_counted_and_five_are_named(coco):
    content = json.loads((coco / "instances.json").read_text())
    content["annotations"] += [dict(content["annotations"][0], id=100 + i, bbox=[30, 20, 30, 30]) for i in range(20)]
    write_coco(coco, content)
    with pytest.raises(DataError, match="20 in all") as caught:
        check_dataset(coco_config(coco))
    assert str(caught.value).count("annotation 1") == 5


def test_coco_masks_matter_only_where_they_are_loaded(coco):
    content = json.loads((coco / "instances.json").read_text())
    del content["annotations"][1]["segmentation"]
    write_coco(coco, content)
    assert check_dataset(coco_config(coco, with_mask=False)).annotations == 4


def test_coco_files_that_are_not(coco):
    for text, message in (("{", "is not JSON"), ("[]", "holds a list")):
        (coco / "instances.json").write_text(text)
        with pytest.raises(DataError, match=message):
            check_dataset(coco_config(coco))
    (coco / "instances.json").unlink()
    with pytest.raises(DataError, match="does not exist"):
        check_dataset(coco_config(coco))


@pytest.fixture
def segments(tmp_path):
    for index in range(3):
        save(tmp_path / f"images/{index}.jpg", noise(10, 14, 3))
        save(tmp_path / f"maps/{index}.png", np.full((10, 14), index, np.uint8))
    (tmp_path / "classes.json").write_text('{"classes": ["road", "sky"]}')
    return tmp_path


def segments_config(root, **options) -> dict:
    prefix = dict(img_path="images", seg_map_path="maps")
    return dict(type="emae_mm.ADE20KFormatDataset", data_root=str(root), data_prefix=prefix, **options)


def test_ade20k_report(segments):
    report = check_dataset(segments_config(segments), num_classes=2)
    assert (report.kind, report.images, report.annotations, report.classes) == ("ade20k", 3, 3, ("road", "sky"))


def test_ade20k_errors(segments):
    def expect(message: str, **options) -> None:
        with pytest.raises(DataError, match=message):
            check_dataset(segments_config(segments, **options))

    with pytest.raises(DataError, match="2 classes, but 150"):
        check_dataset(segments_config(segments), num_classes=150)
    expect(r"2\.png: values \[2\] are no class", reduce_zero_label=False)
    good = (segments / "maps/1.png").read_bytes()
    labels = np.full((10, 14), 255, np.uint8)
    save(segments / "maps/1.png", labels)
    check_dataset(segments_config(segments))  # 255 is ignored
    labels[0, 0] = 3
    save(segments / "maps/1.png", labels)
    expect(r"1\.png: values \[3\] are no class \(1 in all\)")
    save(segments / "maps/1.png", labels[:, :10])
    expect(r"\(height, width\) is \(10, 10\), the image's \(10, 14\)")
    save(segments / "maps/1.png", noise(10, 14, 3))
    expect("3 channels")
    (segments / "maps/1.png").write_bytes(good[:40])
    expect(r"sampled label maps some cannot be used: .*1\.png")
    (segments / "maps/1.png").unlink()
    expect(r"have no label map in .*maps; missing: 1\.png \(1 in all\)")
    (segments / "classes.json").unlink()
    expect(r"neither classes\.json nor")


def test_openmmlabs_own_data_sets(segments, folder):
    """Their defaults differ from ours: mmseg's base class counts classes from 0, mmpretrain's ImageNet has a split."""
    save(segments / "maps/2.png", np.ones((10, 14), np.uint8))
    plain = segments_config(segments) | dict(type="mmseg.BaseSegDataset")
    assert check_dataset(plain, num_classes=2).images == 3
    save(segments / "maps/2.png", np.full((10, 14), 2, np.uint8))
    with pytest.raises(DataError, match=r"values \[2\] are no class"):
        check_dataset(plain)
    report = check_dataset(segments_config(segments) | dict(type="mmseg.ADE20KDataset"), num_classes=150)
    assert report.classes[0] == "wall"
    imagenet = dict(type="mmpretrain.ImageNet", data_root=str(folder), split="val")
    assert check_dataset(imagenet, num_classes=2).images == 3


def test_palette_label_maps_are_read_by_index(segments):
    indices = Image.fromarray(np.ones((10, 14), np.uint8))
    indices.putpalette([200, 100, 0] * 256)
    indices.save(segments / "maps/0.png")
    assert check_dataset(segments_config(segments)).images == 3


def test_wrapped_data_sets(folder, coco):
    wrapped = dict(
        type="ConcatDataset",
        datasets=[
            dict(type="RepeatDataset", times=3, dataset=folder_config(folder)),
            folder_config(folder, "val"),
        ],
    )
    report = check_dataset(wrapped)
    assert (report.images, report.sampled) == (8, 8)
    content = json.loads((coco / "instances.json").read_text())
    del content["annotations"][0]["segmentation"]
    write_coco(coco, content)
    inner = coco_config(coco) | dict(pipeline=[])
    outer = dict(type="MultiImageMixDataset", dataset=inner, pipeline=coco_config(coco)["pipeline"])
    with pytest.raises(DataError, match="segmentation"):
        check_dataset(outer)


def test_unknown_types_are_not_judged():
    assert check_dataset(dict(type="LVISV1Dataset", data_root="/absent")).kind == "unchecked"


def test_whole_configs(folder):
    from mmengine.config import Config

    cfg = Config(
        dict(
            model=dict(head=dict(num_classes=2), data_preprocessor=dict(num_classes=2)),
            train_dataloader=dict(dataset=folder_config(folder)),
            val_dataloader=dict(dataset=folder_config(folder, "val")),
            test_dataloader=dict(dataset=folder_config(folder, "val")),
        )
    )
    reports = check_config_data(cfg)
    assert [(report.split, report.images) for report in reports] == [("train", 5), ("val", 3)]
    other = copy.deepcopy(cfg)
    other.model.head.num_classes = other.model.data_preprocessor.num_classes = 3
    with pytest.raises(DataError, match="2 classes, but 3"):
        check_config_data(other)
    (folder / "val/b").rename(folder / "val/bb")
    with pytest.raises(DataError, match=r"differ; not in both: \['b', 'bb'\]"):
        check_config_data(cfg)


def test_real_data(shared):
    data = shared / "data"
    tiny = check_dataset(folder_config(data / "imagenet_tiny"), num_classes=20)
    assert tiny.images == 10_000 and not tiny.notes
    for name, images, annotations in (("coco_mini", 80, 739), ("coco_pan", 59, 508)):
        config = coco_config(data / name) | dict(
            ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017")
        )
        report = check_dataset(config, num_classes=80)
        assert (report.images, report.annotations, report.notes) == (images, annotations, [])
    prefix = dict(img_path="images/training", seg_map_path="annotations/training")
    config = segments_config(data / "camvid") | dict(data_prefix=prefix)
    assert check_dataset(config, num_classes=11).images == 367
    # the folder with the labels already shifted is in another convention, and the check sees it
    prefix["seg_map_path"] = "annotations_trainids/training"
    assert check_dataset(config | dict(reduce_zero_label=False), num_classes=11).images == 367
