"""Methods trained end to end by the launcher: interrupted is uninterrupted, and one from outside the package works."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).parent
IMAGES, BATCH, PASS, EPOCHS = 12, 4, 2, 2  # two passes a step
CONFIG = """
_base_ = [{base!r}]
custom_imports = dict(imports=['emae_mm.registry', 'toy_run'], allow_failed_imports=False)
custom_hooks = [dict(type='emae_mm.KillHook')]
global_batch_size = {batch}
train_dataloader = dict(batch_size={one_pass})
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dim=32, depth=2, num_heads=2)),
    decoder=dict(decoder_dim=16, num_heads=2))
train_cfg = dict(max_epochs={epochs})
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(_delete_=True, type='Visualizer', vis_backends=[])
"""
RUNS = {
    "rc-mae": dict(base="rc-mae", options={}),
    "rc-mae-other": dict(
        base="rc-mae",
        options={
            "model.ema_index": "global", "model.ema_per": "step", "model.parts_per_pass": 2,
            "model.masking": dict(type="ParallelMasking"), "model.consistency_weight": 1.0,
        },
    ),
    "multi-view-mae": dict(base="multi-view-mae", options={}),
    "multi-view-mae-one-target": dict(
        base="multi-view-mae",
        options={"model.two_targets": False, "train_dataloader.dataset.pipeline.1.num_views": [1]},
    ),
}  # fmt: skip
INTERRUPTED = ("rc-mae-other", "multi-view-mae")  # run whole, and killed in the second epoch and resumed
# imports that every forked run would otherwise pay for
SCRIPT = """
from emae_mm.registry import DATASETS, HOOKS, MODELS, TRANSFORMS
for registry, name in ((MODELS, 'RCMAE'), (DATASETS, 'ImageFolder'), (TRANSFORMS, 'LoadImage'), (HOOKS, 'RecordHook')):
    assert registry.get(name)
import toy_run
toy_run.main()
"""
LOGGED = {
    "rc-mae": {"loss_reconstruction", "loss_teacher"},
    "rc-mae-other": {"loss_reconstruction", "loss_teacher", "loss_consistency"},
    "multi-view-mae": {"loss_reconstruction", "loss_contrast", "contrast_top1"},
    "multi-view-mae-one-target": {"loss_reconstruction", "loss_contrast", "contrast_top1"},
}


def write_images(root: Path) -> None:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(IMAGES):
            folder = root / split / f"class{index % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((72, 72)).save(folder / f"{index}.png")


def write_documented_method(repo: Path, folder: Path) -> tuple[str, str]:
    """The code of docs/add-a-method.md in files, on the small config; the two configs' paths."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (repo / "docs" / "add-a-method.md").read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["my_masks.py", "my_masks_config.py", "my_method.py", "my_method_config.py"]
    for name, code in blocks:
        for method in ("emae", "mae"):
            full = f'"configs/pretrain/{method}_vit-base-p16_8xb512-300e_in1k.py"'
            code = code.replace(full, repr(str(repo / f"configs/pretrain/tiny/{method}_vit-tiny64_folder.py")))
        if name.endswith("_config.py"):
            assert "vit-tiny64_folder" in code
            code += f"\nglobal_batch_size = {BATCH}\ntrain_cfg = dict(max_epochs=2)\n"
        (folder / name).write_text(code)
    return str(folder / "my_masks_config.py"), str(folder / "my_method_config.py")


def scenarios_in(folder: Path, repo: Path) -> list[dict]:
    found = []
    for name, run in RUNS.items():
        config = folder / f"{name}.py"
        base = str(repo / f"configs/pretrain/tiny/{run['base']}_vit-tiny64_folder.py")
        config.write_text(CONFIG.format(base=base, batch=BATCH, one_pass=PASS, epochs=EPOCHS))
        common = dict(config=str(config), data_root=str(folder / "data"), cfg_options=run["options"])
        found.append(dict(common, work_dir=str(folder / name / "whole")))
        if name in INTERRUPTED:
            found.append(dict(common, work_dir=str(folder / name / "resumed"), kill="step:8"))
            found.append(dict(common, work_dir=str(folder / name / "resumed"), resume=True))
    for config in write_documented_method(repo, folder):
        found.append(dict(config=config, data_root=str(folder / "data"), work_dir=str(folder / Path(config).stem)))
    found.append(
        dict(
            config="classification/tiny/knn_vit-tiny64_folder.py",
            data_root=str(folder / "data"),
            work_dir=str(folder / "knn"),
            pretrained=str(folder / "my_method_config" / "encoder.pth"),
            cfg_options={"test_cfg.k": [1, 5], "test_cfg.primary_k": 5},
        )
    )
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repo) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    write_images(folder / "data")
    scenarios = scenarios_in(folder, repo)
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    command = [sys.executable, "-c", SCRIPT, str(folder / "scenarios.json"), str(folder / "codes.json")]
    paths = os.pathsep.join([str(repo), str(HERE), str(folder)])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    for scenario, code in zip(scenarios, json.loads((folder / "codes.json").read_text()), strict=True):
        assert code == (-signal.SIGKILL if "kill" in scenario else 0), f"{scenario}: {code}\n{done.stderr[-3000:]}"
    return folder


def last(work_dir: Path) -> dict:
    return torch.load(work_dir / Path((work_dir / "last_checkpoint").read_text()).name, weights_only=True)


@pytest.mark.parametrize("name", INTERRUPTED)
def test_resumed_is_uninterrupted_bit_for_bit(runs, name):
    whole, resumed = (last(runs / name / kind) for kind in ("whole", "resumed"))
    assert whole["meta"]["iter"] == resumed["meta"]["iter"] == EPOCHS * IMAGES // PASS
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key
    for index, moments in whole["optimizer"]["state"].items():
        for key, value in moments.items():
            assert torch.equal(value, resumed["optimizer"]["state"][index][key]), (index, key)


@pytest.mark.parametrize(("name", "updates"), [("rc-mae", 12), ("rc-mae-other", 6)])
def test_teacher_is_updated_saved_and_exported(runs, name, updates):
    state = last(runs / name / "whole")["state_dict"]
    assert state["teacher.steps"] == updates, "12 passes, 6 steps"
    exported = torch.load(runs / name / "whole" / "encoder.pth", weights_only=True)
    differing = 0
    for key, value in exported["model"].items():
        assert torch.equal(value, state[f"teacher.module.backbone.{key}"])
        differing += not torch.equal(value, state[f"backbone.{key}"])
    assert differing > len(exported["model"]) / 2, "the teacher is not the student"
    assert exported["meta"]["method"] == "RC-MAE"


def test_the_optimiser_does_not_know_the_teacher(runs):
    groups = last(runs / "rc-mae" / "whole")["optimizer"]["param_groups"]
    names = [name for group in groups for name in group["param_names"]]
    assert names and not any(name.startswith("teacher.") for name in names)


@pytest.mark.parametrize("name", list(LOGGED))
def test_losses_are_logged_apart(runs, name):
    text = "".join(path.read_text() for path in (runs / name / "whole").glob("*/*.log"))
    for key in LOGGED[name]:
        assert re.search(rf"\b{key}: \d", text), key


def test_documented_method_trains_and_transfers_from_outside_the_package(runs):
    exported = torch.load(runs / "my_method_config" / "encoder.pth", weights_only=True)
    assert exported["meta"]["method"] == "AbsoluteMAE"
    text = "".join(path.read_text() for path in (runs / "my_method_config").glob("*/*.log"))
    assert "loss_absolute" in text and "largest_prediction" in text
    record = json.loads((runs / "knn" / "record.json").read_text())
    assert record["method"] == "AbsoluteMAE" and record["task"] == "imagenet-knn"
    assert last(runs / "my_masks_config")["meta"]["epoch"] == 2
