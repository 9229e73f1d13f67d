"""The k-NN test loop on generated images: one process and two give the same numbers, counted over each image once.

The two processes import the whole stack once more (about 15 s).
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

import emae_mm.registry  # noqa: F401
from emae_mm.engine.knn_loop import gather_samples
from emae_mm.errors import ConfigError, DataError
from emae_mm.evaluation.knn import count_correct, knn_predict

BANK, QUERIES, CLASSES = 9, 5, ("a", "b", "c")  # 27 and 15 images: no multiple of two processes


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", BANK), ("val", QUERIES)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3)) // 2 + 40 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


def config_of(root, work_dir, **loop):
    pipeline = [dict(type="emae_mm.LoadImage"), dict(type="mmpretrain.PackInputs")]

    def loader(split):
        return dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="default_collate"),
            dataset=dict(type="emae_mm.ImageFolder", data_root=str(root), data_prefix=split, pipeline=pipeline),
        )

    return Config(
        dict(
            default_scope="mmpretrain",
            model=dict(
                type="mmpretrain.ImageClassifier",
                data_preprocessor=dict(type="mmpretrain.ClsDataPreprocessor", mean=[128.0] * 3, std=[64.0] * 3),
                backbone=dict(
                    type="emae_mm.ViTForClassification",
                    arch=dict(embed_dim=16, depth=1, num_heads=2),
                    img_size=32,
                    patch_size=8,
                    pool="avg_norm",
                    # not frozen: DistributedDataParallel refuses a model without gradients
                    pretrained="random",
                ),
            ),
            test_dataloader=loader("val"),
            test_cfg=dict(type="emae_mm.KNNTestLoop", bank_dataloader=loader("train"), k=(1, 5), primary_k=5) | loop,
            test_evaluator=[],
            model_wrapper_cfg=dict(type="MMDistributedDataParallel", device_ids=None),
            work_dir=str(work_dir),
            log_level="ERROR",
            default_hooks=dict(
                logger=dict(type="LoggerHook"), timer=dict(type="IterTimerHook"), checkpoint=None, param_scheduler=None
            ),
            randomness=dict(seed=3),
            experiment_name="knn",
        )
    )


def features_by_hand(runner, root, split):
    model, features, labels = runner.model, [], []
    for label, name in enumerate(CLASSES):
        for path in sorted((root / split / name).glob("*.png")):
            pixels = torch.from_numpy(np.array(Image.open(path))[..., ::-1].copy()).permute(2, 0, 1).float()
            features.append(model.backbone(((pixels - 128) / 64).unsqueeze(0))[-1])
            labels.append(label)
    return torch.cat(features).detach(), torch.tensor(labels)


def test_metrics_are_those_of_the_features(images, tmp_path):
    runner = Runner.from_cfg(config_of(images, tmp_path))
    metrics = runner.test()
    bank, bank_labels = features_by_hand(runner, images, "train")
    queries, labels = features_by_hand(runner, images, "val")
    scores = knn_predict(bank, bank_labels, queries, num_classes=3, k=(1, 5))
    expected = {f"knn/top1_k{k}": 100 * count_correct(scores[k], labels, (1,))[0] / len(labels) for k in (1, 5)}
    assert metrics == {"knn/top1": expected["knn/top1_k5"], **expected}  # three classes: no top-5
    assert metrics["knn/top1"] > 50, "brightness tells the classes apart"


def one_of_two(rank, root, work_dir, port):
    """What each of two processes does; the metrics go to a file of its own."""
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    config = config_of(root, work_dir)
    config.launcher = "pytorch"
    metrics = Runner.from_cfg(config).test()
    (Path(work_dir) / f"{rank}.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()


def test_two_processes_measure_the_same(images, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    two = tmp_path / "two"
    two.mkdir()
    command = [sys.executable, __file__]
    processes = [subprocess.Popen([*command, str(rank), str(images), str(two), str(port)]) for rank in range(2)]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    both = [json.loads((two / f"{rank}.json").read_text()) for rank in range(2)]
    assert both[0] == both[1] == Runner.from_cfg(config_of(images, tmp_path / "one")).test()


def test_gathering_drops_repeats_and_restores_the_order():
    indices = torch.tensor([2, 0, 1, 0, 2])
    features = torch.tensor([[2.0], [0.0], [1.0], [0.0], [2.0]])
    found, labels = gather_samples(indices, features, indices * 10)
    assert found.flatten().tolist() == [0.0, 1.0, 2.0]
    assert labels.tolist() == [0, 10, 20]


def test_contradictions_are_named(images, tmp_path):
    with pytest.raises(ConfigError, match="primary_k=7"):
        Runner.from_cfg(config_of(images, tmp_path, primary_k=7)).test()
    config = config_of(images, tmp_path)
    config.test_evaluator = dict(type="mmpretrain.Accuracy")
    with pytest.raises(ConfigError, match="test_evaluator"):
        Runner.from_cfg(config).test()
    other = tmp_path / "other"
    for split, names in (("train", "abc"), ("val", "ab")):
        for name in names:
            (other / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(other / split / name / "0.png")
    with pytest.raises(DataError, match=r"\['c'\]"):
        Runner.from_cfg(config_of(other, tmp_path, k=(1,), primary_k=1)).test()


if __name__ == "__main__":  # the test of two processes starts this file twice
    one_of_two(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
