"""What the launcher does to a config, and what it refuses before anything is computed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from toy_run import write_config

from emae_mm.engine import launch
from emae_mm.engine.distributed import share_batch
from emae_mm.engine.follow_data import read_classes
from emae_mm.engine.plain import to_history, to_plain
from emae_mm.engine.schedule import fuse_optimizer
from emae_mm.errors import CheckpointError, ConfigError, UserError

LINEAR = "classification/demo/linear_vit-demo_demo"
DETECTION = "detection/demo/mask-rcnn_vit-demo_demo"


@pytest.fixture
def toy(tmp_path) -> dict:
    """Arguments of ``prepare_config`` for a toy run."""
    return dict(config=write_config(tmp_path / "toy.py", noisy=False, validate=False), work_dir=tmp_path / "work")


def _image_folder(root: Path, classes: int) -> Path:
    for split in ("train", "val"):
        for index in range(classes):
            folder = root / split / f"class{index}"
            folder.mkdir(parents=True)
            Image.fromarray(np.full((70, 70, 3), 40 * index, dtype=np.uint8)).save(folder / "image.png")
    return root


def test_a_transfer_without_an_encoder_is_refused(tmp_path):
    data = _image_folder(tmp_path / "data", 3)
    cfg = launch.prepare_config(LINEAR, work_dir=tmp_path / "work", data_root=data)
    with pytest.raises(ConfigError, match="'pretrained' is not set") as caught:
        launch.run(cfg)
    assert "'random'" in caught.value.fix
    assert not (tmp_path / "work").exists()


def test_pretrained_reaches_the_backbone_and_only_transfers_take_it(tmp_path, toy):
    assert launch.prepare_config(LINEAR, pretrained="random").model.backbone.pretrained == "random"
    with pytest.raises(ConfigError, match="takes no pretrained encoder"):
        launch.prepare_config(**toy, pretrained="random")


def test_data_root_reaches_every_data_set_and_the_evaluators(tmp_path):
    cfg = launch.prepare_config(DETECTION, data_root=tmp_path, pretrained="random")
    for split in ("train", "val", "test"):
        assert cfg[f"{split}_dataloader"].dataset.data_root == str(tmp_path)
    for split in ("val", "test"):
        expected = tmp_path / cfg[f"{split}_dataloader"].dataset.ann_file
        assert Path(cfg[f"{split}_evaluator"].ann_file) == expected
    with pytest.raises(ConfigError, match="nowhere is not a folder"):
        launch.prepare_config(DETECTION, data_root=tmp_path / "nowhere")


def test_number_of_classes_is_that_of_the_data(tmp_path):
    cfg = launch.prepare_config(LINEAR, data_root=_image_folder(tmp_path / "data", 3), pretrained="random")
    read_classes(cfg)
    assert cfg.model.head.num_classes == 3 and cfg.record.data == "emae-demo"


@pytest.mark.parametrize(("classes", "name"), [(3, "my images"), (1000, "ImageNet-1K")])
def test_a_record_claims_a_known_data_set_only_with_its_number_of_classes(tmp_path, classes, name):
    root = tmp_path / "my images"
    for index in range(classes):
        (root / "train" / f"class{index}").mkdir(parents=True)
    full = "classification/linear_vit-base-p16_8xb2048-90e_in1k"
    cfg = launch.prepare_config(full, data_root=root, pretrained="random")
    read_classes(cfg)
    assert cfg.model.head.num_classes == classes and cfg.record.data == name


def test_work_directory_of_another_config_is_refused(toy):
    launch.run(launch.prepare_config(**toy), quiet=True)
    cfg = launch.prepare_config(**toy, cfg_options={"optim_wrapper.optimizer.lr": 0.5}, resume="auto")
    with pytest.raises(ConfigError, match=r"belongs to another configuration.*optim_wrapper\.optimizer\.lr"):
        launch.run(cfg, quiet=True)


def test_finished_run_is_kept_and_known(toy):
    assert not launch.is_finished(launch.prepare_config(**toy))
    launch.run(launch.prepare_config(**toy), quiet=True)
    before = {path: path.stat().st_mtime_ns for path in toy["work_dir"].glob("*.pth")}
    assert before and launch.is_finished(launch.prepare_config(**toy))
    with pytest.raises(ConfigError, match="already holds checkpoints") as caught:
        launch.run(launch.prepare_config(**toy), quiet=True)
    assert "--resume" in caught.value.fix
    assert {path: path.stat().st_mtime_ns for path in toy["work_dir"].glob("*.pth")} == before


def test_global_batch_is_shared_or_refused_with_both_numbers(toy, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    cfg = launch.prepare_config(**toy, cfg_options=dict(global_batch_size=8), launcher="pytorch")
    share_batch(cfg)
    assert cfg.train_dataloader.batch_size == 2
    cfg = launch.prepare_config(**toy, cfg_options=dict(global_batch_size=10), launcher="pytorch")
    with pytest.raises(ConfigError, match="global_batch_size=10 does not divide among 4 processes"):
        share_batch(cfg)


def test_loss_that_is_not_finite_stops_the_run(toy):
    cfg = launch.prepare_config(**toy, cfg_options={"optim_wrapper.optimizer.lr": 1e30})
    cfg.custom_hooks.append(dict(type="emae_mm.NonFiniteLossHook"))
    with pytest.raises(UserError, match=r"the loss is not finite at iteration \d+: \{'loss'"):
        launch.run(cfg, quiet=True)


@pytest.mark.parametrize("content", ["other", "unsafe", "truncated"])
def test_checkpoint_that_cannot_be_resumed_is_one_error(toy, tmp_path, content):
    path = tmp_path / "given.pth"
    if content == "other":
        torch.save(dict(state_dict={"backbone.weight": torch.zeros(3, 3)}, meta=dict(epoch=1, iter=4)), path)
    elif content == "unsafe":
        torch.save(dict(state_dict={}, payload=Path(".")), path)
    else:
        path.write_bytes(b"PK\x03\x04 cut off")
    expected = dict(other="does not fit the model", unsafe="run code when loaded", truncated="is unreadable")[content]
    with pytest.raises(CheckpointError, match=expected):
        launch.run(launch.prepare_config(**toy, resume=str(path)), quiet=True)


def test_record_of_a_finished_run(toy):
    launch.run(launch.prepare_config(**toy), quiet=True)
    record = json.loads((toy["work_dir"] / "record.json").read_text())
    assert record["primary"] == "loss" and record["seed"] == 3 and record["wall_clock_s"] > 0


def test_plain_values_survive_a_safe_checkpoint(tmp_path):
    from mmengine.logging import HistoryBuffer

    content = dict(number=np.float64(3), shape=np.arange(2), kinds={"a"}, odd=Path("x"))
    content["log"] = HistoryBuffer([1.0, 2.5], [1, 2])
    torch.save(to_plain(content), tmp_path / "plain.pth")
    read = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert read["number"] == 3.0 and read["shape"] == [0, 1] and read["kinds"] == ["a"] and isinstance(read["odd"], str)
    np.testing.assert_array_equal(to_history(read["log"]).data, [[1.0, 2.5], [1, 2]])


def test_images_of_a_pass_are_no_part_of_the_recipe_and_those_of_a_step_are(toy):
    held = {"train_dataloader.batch_size": 2}
    assert launch.prepare_config(**toy, cfg_options=held).record.protocol.endswith("with train_dataloader.batch_size=2")
    held["global_batch_size"] = 4
    changed = launch.prepare_config(**toy, cfg_options=held).record.protocol
    assert changed.endswith("with global_batch_size=4"), "what a process holds at once changes nothing then"


def test_adamw_steps_in_one_pass_unless_the_config_chooses(toy):
    cfg = launch.prepare_config(**toy)
    fuse_optimizer(cfg)
    assert cfg.optim_wrapper.optimizer.fused is True
    for chosen in (dict(foreach=True), dict(fused=False)):
        cfg = launch.prepare_config(**toy, cfg_options={f"optim_wrapper.optimizer.{k}": v for k, v in chosen.items()})
        fuse_optimizer(cfg)
        assert cfg.optim_wrapper.optimizer.get("fused") == chosen.get("fused")
    cfg.optim_wrapper.optimizer = dict(type="SGD", lr=0.1)
    fuse_optimizer(cfg)
    assert "fused" not in cfg.optim_wrapper.optimizer
