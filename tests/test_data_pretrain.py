"""The full-size pre-training configs read their data sets' layouts."""

import csv

import pytest
import torch
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import DefaultScope
from tar_shards import jpeg, write_shards

from emae_mm.data.checks import check_config_data
from emae_mm.engine.launch import prepare_config
from emae_mm.registry import DATA_SAMPLERS


def _coco(root) -> None:
    (root / "train2017").mkdir()
    for number in range(4):
        (root / f"train2017/{number:012d}.jpg").write_bytes(jpeg(number, (60, 40)))


def _openimages(root) -> None:
    for number in range(4):
        (root / f"train_{number}").mkdir()
        (root / f"train_{number}/{number}0.jpg").write_bytes(jpeg(number, (60, 40)))
    with open(root / "train-images-boxable-with-rotation.csv", "w", newline="") as file:
        rows = [[f"{number}0", "train", f"{90 * number}.0"] for number in range(4)]
        csv.writer(file).writerows([["ImageID", "Subset", "Rotation"], *rows])


MAKE = {
    "1000e_coco": _coco,
    "100e_openimages": _openimages,
    "300e_in1k-shards": lambda root: write_shards(root / "train", (3, 1)),
}


@pytest.mark.parametrize("name", list(MAKE))
def test_config_reads_its_data(name, tmp_path):
    MAKE[name](tmp_path)
    config = prepare_config(f"pretrain/emae_vit-base-p16_8xb512-{name}.py", data_root=tmp_path)
    (report,) = check_config_data(config)
    assert report.images == report.sampled == 4 and not report.notes and not report.broken
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        data = ROOT_DATASETS.build(config.train_dataloader.dataset)
        sampler = DATA_SAMPLERS.build(config.train_dataloader.sampler, default_args=dict(dataset=data, seed=0))
        samples = [data[index] for index in sampler]
    assert sorted({sample["data_samples"].sample_idx for sample in samples}) == [0, 1, 2, 3]
    for sample in samples:
        assert sample["inputs"].shape == (3, 224, 224) and sample["inputs"].dtype == torch.uint8
