import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emae_mm.registry  # noqa: F401 - before mmdet and mmseg: it stands in for mmcv's compiled operators
from emae_mm.data.classes import classes_of_ade20k, classes_of_coco, classes_of_imagefolder, metainfo_of_ade20k
from emae_mm.errors import DataError
from emae_mm.registry import DATASETS


def save(path: Path, size=(8, 6), mode="RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, 7).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("train/b/1.jpg", "train/a/2.JPEG", "train/a/deep/3.png", "train/c/4.webp", "train/.hidden/5.jpg"):
        save(tmp_path / name)
    (tmp_path / "train/a/notes.txt").touch()
    return tmp_path


def test_imagefolder_reads_classes_from_the_folders(folder):
    assert classes_of_imagefolder(folder / "train") == ("a", "b", "c")
    data = DATASETS.build(dict(type="ImageFolder", data_root=str(folder), data_prefix="train"))
    assert data.metainfo["classes"] == ("a", "b", "c")
    found = [(Path(item["img_path"]).name, item["gt_label"]) for item in map(data.get_data_info, range(len(data)))]
    assert found == [("2.JPEG", 0), ("3.png", 0), ("1.jpg", 1), ("4.webp", 2)]


def test_imagefolder_without_labels_takes_any_tree(folder):
    save(folder / "train/loose.jpg")
    data = DATASETS.build(dict(type="ImageFolder", data_root=str(folder), data_prefix="train", with_label=False))
    assert len(data) == 5 and "gt_label" not in data.get_data_info(0)


def test_imagefolder_with_an_annotation_file(folder):
    (folder / "list.txt").write_text("b/1.jpg 4\na/2.JPEG 0\n")
    data = DATASETS.build(
        dict(type="ImageFolder", data_root=str(folder), data_prefix="train", ann_file="list.txt", lazy_init=False)
    )
    assert [data.get_data_info(index)["gt_label"] for index in range(2)] == [4, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_prefix": "absent"}, "folder of images .*absent does not exist"),
        ({"data_prefix": "empty"}, "no class folders"),
        ({"data_prefix": "empty", "with_label": False}, "holds no image"),
        ({"data_prefix": "train", "metainfo": {"classes": ["x", "y"]}}, "3 class folders, but 2 classes"),
        ({"data_prefix": "train", "ann_file": "absent.txt"}, "absent.txt does not exist"),
    ],
)
def test_imagefolder_errors(folder, options, message):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        DATASETS.build(dict(type="ImageFolder", data_root=str(folder), **options))


@pytest.fixture
def coco(tmp_path):
    """Category ids with gaps and in no order, as user's files may have them."""
    save(tmp_path / "images/1.jpg", (40, 30))
    content = dict(
        images=[dict(id=1, file_name="1.jpg", width=40, height=30)],
        annotations=[
            dict(id=number, image_id=1, category_id=category, bbox=[number, 2, 9, 8], area=72, iscrowd=0)
            for number, category in enumerate([7, 3, 12], 1)
        ],
        categories=[dict(id=7, name="cup"), dict(id=3, name="dog"), dict(id=12, name="kite")],
    )
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def coco_config(root: Path, **options) -> dict:
    prefix = dict(img="images")
    return dict(type="CocoFormatDataset", data_root=str(root), ann_file="instances.json", data_prefix=prefix, **options)


def test_coco_reads_classes_from_the_file(coco, capsys):
    DATASETS.get("CocoFormatDataset")  # the first look-up imports mmdet, which has things to say
    capsys.readouterr()
    assert classes_of_coco(coco / "instances.json") == ("cup", "dog", "kite")
    data = DATASETS.build(coco_config(coco))
    assert data.metainfo["classes"] == ("cup", "dog", "kite") and len(data.metainfo["palette"]) == 3
    assert [instance["bbox_label"] for instance in data.get_data_info(0)["instances"]] == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_coco_labels_are_those_of_the_evaluation(coco):
    """CocoMetric maps label k back to the k-th of its category ids; the classes must be in that order."""
    from mmdet.datasets.api_wrappers import COCO

    data = DATASETS.build(coco_config(coco, metainfo=dict(classes=("cup", "kite"))))
    ids = COCO(str(coco / "instances.json")).get_cat_ids(cat_names=data.metainfo["classes"])
    assert data.cat_ids == ids == [7, 12]
    assert [instance["bbox_label"] for instance in data.get_data_info(0)["instances"]] == [0, 1]


def test_coco_refuses_classes_that_mmdet_would_mislabel(coco):
    with pytest.raises(DataError, match="another order"):
        DATASETS.build(coco_config(coco, metainfo=dict(classes=("kite", "cup"))))
    with pytest.raises(DataError, match="no category \\['bat'\\]"):
        DATASETS.build(coco_config(coco, metainfo=dict(classes=("bat", "cup"))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [], "categories": [{"id": 1', "not JSON"),
        ("[1, 2]", "holds a list"),
        ('{"images": []}', "'categories' is missing"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "several categories with the name"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "several categories with the id"),
        ('{"categories": ["a"]}', "not a COCO file"),
        ("", "not JSON"),
    ],
)
def test_what_is_not_coco(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        classes_of_coco(tmp_path / "a.json")


def test_coco_categories_may_stand_anywhere(tmp_path):
    categories = [dict(id=1, name='a "categories" b'), dict(id=2, name="c")]
    for content in (dict(categories=categories, images=[]), dict(images=[], categories=categories)):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert classes_of_coco(tmp_path / "a.json") == ('a "categories" b', "c")


@pytest.fixture
def segments(tmp_path):
    for name in ("one.jpg", "deep/two.png"):
        save(tmp_path / "images" / name)
        save((tmp_path / "maps" / name).with_suffix(".png"), mode="L")
    return tmp_path


def segments_config(root: Path, **options) -> dict:
    prefix = dict(img_path="images", seg_map_path="maps")
    return dict(type="ADE20KFormatDataset", data_root=str(root), data_prefix=prefix, **options)


def test_ade20k_reads_classes_from_the_data(segments):
    (segments / "classes.json").write_text(
        json.dumps(
            dict(
                classes=[
                    dict(name="sky", annotations_value=2, palette_rgb=[0, 0, 255]),
                    dict(name="road", annotations_value=1, palette_rgb=[9, 9, 9]),
                ]
            )
        )
    )
    data = DATASETS.build(segments_config(segments))
    assert data.metainfo["classes"] == ("road", "sky") and data.metainfo["palette"] == [[9, 9, 9], [0, 0, 255]]
    assert data.metainfo["reduce_zero_label"] is True
    pairs = [data.get_data_info(index) for index in range(len(data))]
    assert [Path(pair["img_path"]).name for pair in pairs] == ["two.png", "one.jpg"]
    assert all(Path(pair["seg_map_path"]).is_file() for pair in pairs)


def test_ade20k_class_lists(segments):
    (segments / "classes.json").write_text('["road", "sky"]')
    assert metainfo_of_ade20k(segments) == dict(classes=("road", "sky"))
    for text, message in (
        ("{", "not JSON"),
        ("{}", "missing or empty"),
        ('{"classes": [{"id": 1}]}', "no 'name'"),
        ('{"classes": ["a", "a"]}', "more than once"),
        ('{"classes": [{"name": "a", "annotations_value": 0}]}', "must be each of 1..1"),
    ):
        (segments / "classes.json").write_text(text)
        with pytest.raises(DataError, match=message):
            classes_of_ade20k(segments)


def test_ade20k_itself_and_the_unknown(segments):
    with pytest.raises(DataError, match=r"neither classes\.json nor"):
        DATASETS.build(segments_config(segments))
    (segments / "objectInfo150.txt").write_text("the official list")
    classes = DATASETS.build(segments_config(segments)).metainfo["classes"]
    assert len(classes) == 150 and classes[:2] == ("wall", "building")


def test_ade20k_with_a_list_and_without_images(segments):
    (segments / "classes.json").write_text('["road"]')
    (segments / "list.txt").write_text("one\n")
    assert len(DATASETS.build(segments_config(segments, ann_file="list.txt"))) == 1
    with pytest.raises(DataError, match="holds no image"):
        DATASETS.build(segments_config(segments, img_suffix=".bmp"))
    with pytest.raises(DataError, match="does not exist"):
        DATASETS.build(segments_config(segments / "absent"))


def test_real_data_through_the_pipelines(shared):
    """Each library's own loading steps after ours."""
    data = DATASETS.build(
        dict(
            type="mmdet.RepeatDataset",
            times=1,
            dataset=dict(
                type="emae_mm.CocoFormatDataset",
                data_root=str(shared / "data/coco_pan"),
                ann_file="annotations/instances_val2017.json",
                data_prefix=dict(img="val2017"),
                pipeline=[
                    dict(type="emae_mm.LoadImage"),
                    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
                    dict(type="mmdet.PackDetInputs"),
                ],
            ),
        )
    )
    sample = data[0]
    assert sample["inputs"].shape[0] == 3 and len(data.metainfo["classes"]) == 80
    assert sample["data_samples"].gt_instances.masks.masks.any(axis=(1, 2)).all()
    data = DATASETS.build(
        dict(
            type="ADE20KFormatDataset",
            data_root=str(shared / "data/camvid"),
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            pipeline=[
                dict(type="emae_mm.LoadImage"),
                dict(type="mmseg.LoadAnnotations", reduce_zero_label=True),
                dict(type="mmseg.PackSegInputs"),
            ],
        )
    )
    labels = np.unique(data[0]["data_samples"].gt_sem_seg.data)
    assert len(data) == 101 and data.metainfo["classes"][0] == "Sky" and set(labels) <= {*range(11), 255}
    tiny = shared / "data/imagenet_tiny"
    data = DATASETS.build(dict(type="ImageFolder", data_root=str(tiny), data_prefix="val"))
    assert len(data) == 1000 and np.array_equal(np.bincount(data.get_gt_labels()), [50] * 20)
