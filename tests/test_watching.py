"""What a run shows of itself, on the demonstration's EMAE and 24 generated images, 3 epochs of 6 steps.

About a minute on a free core; the two processes of the last test import the whole stack once more.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image

from emae_mm.engine import launch, watch
from emae_mm.engine.hooks.meters import gradient_norm, images_in
from emae_mm.engine.undisturbed import undisturbed
from emae_mm.errors import ConfigError, DataError, UserError
from emae_mm.registry import HOOKS, TRANSFORMS

REPO = Path(__file__).resolve().parents[1]
STEPS, EPOCHS, BATCH = 6, 3, 4
CONFIG = """
_base_ = [{base!r}]
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
global_batch_size = {batch}
train_cfg = dict(max_epochs={epochs})
train_dataloader = dict(batch_size={batch})
{more}
"""


@HOOKS.register_module(force=True)
class WatchedHook(Hook):
    """Keeps what other hooks log from sight of: the gradient norm by a loop of its own, and the panels' masks."""

    norms: dict = {}  # noqa: RUF012  one run at a time

    def before_train(self, runner) -> None:
        type(self).norms = {}
        runner.optim_wrapper.optimizer.register_step_pre_hook(lambda *_: self._measure(runner))

    def _measure(self, runner) -> None:
        total = sum(p.grad.double().square().sum() for p in runner.model.parameters() if p.grad is not None)
        self.norms[runner.iter + 1] = total.sqrt().item()


@TRANSFORMS.register_module(force=True)
class SlowTransform:
    """Makes loading an image take 50 ms."""

    def __call__(self, results: dict) -> dict:
        time.sleep(0.05)
        return results


@HOOKS.register_module(force=True)
class PoisonHook(Hook):
    """Makes the loss of one process NaN at one step, before anyone looks at it."""

    priority = "HIGHEST"

    def __init__(self, step: int, rank: int = 0):
        self.step, self.rank = step, rank

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.step and runner.rank == self.rank:
            outputs["loss_reconstruction"] = torch.tensor(float("nan"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 9)):
        for index in range(count):
            folder = root / split / f"class{index % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (8, 8, 3)) // 2 + 40 * (index % 3)
            Image.fromarray(pixels.astype(np.uint8)).resize((72, 80)).save(folder / f"{index}.png")
    return root


def config_file(folder: Path, more: str = "", batch: int = BATCH) -> Path:
    path = folder / "emae.py"
    base = str(REPO / "configs/pretrain/demo/emae_vit-demo_demo.py")
    path.write_text(CONFIG.format(base=base, batch=batch, epochs=EPOCHS, more=more))
    return path


def train(folder: Path, images: Path, more: str = "", **options) -> Path:
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    cfg = launch.prepare_config(config_file(folder, more), work_dir=folder / "work", data_root=images, **options)
    launch.run(cfg, quiet=True)
    return folder / "work"


def scalars(work_dir: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = work_dir.glob("*/vis_data/events*")
    reader = EventAccumulator(str(events), size_guidance={"images": 0})
    reader.Reload()
    found = {tag: {e.step: e.value for e in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}
    return found | {"images": {tag: [e.step for e in reader.Images(tag)] for tag in reader.Tags()["images"]}}


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(work_dir / f"epoch_{EPOCHS}.pth", weights_only=True)["state_dict"]


PROBE = "knn_probe = dict(interval=2, resize=64, k=(3, 5), primary_k=5, num_workers=0)"
FLAT = "param_scheduler = [dict(type='ConstantLR', factor=1.0)]\n"
ONE_EPOCH = "train_cfg = dict(max_epochs=1)\n" + FLAT
WATCHED = "custom_hooks = [dict(type='emae_mm.WatchedHook')]\nreconstruction_panel = dict(interval=1, images=2)\n"


@pytest.fixture(scope="module")
def plain(images, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("plain"), images, "reconstruction_panel = None")


@pytest.fixture(scope="module")
def watched(images, tmp_path_factory) -> tuple[Path, dict[int, float]]:
    work_dir = train(tmp_path_factory.mktemp("watched"), images, WATCHED + PROBE)
    return work_dir, dict(WatchedHook.norms)


def test_every_scalar_is_in_the_event_file(watched):
    found = scalars(watched[0])
    every_step = ("loss", "loss_reconstruction", "loss_consistency", "lr", "grad_norm", "data_time_share",
                  "images_per_s", "memory", "time")  # fmt: skip
    for name in every_step:
        assert list(found[name]) == list(range(1, STEPS * EPOCHS + 1)), name
    assert list(found["knn/top1"]) == [2 * STEPS]
    for step, loss in found["loss"].items():  # event files hold float32
        assert loss == pytest.approx(found["loss_reconstruction"][step] + found["loss_consistency"][step], rel=1e-5)
        assert 0 <= found["data_time_share"][step] <= 100
        assert found["images_per_s"][step] == pytest.approx(BATCH / found["time"][step], rel=1e-3)
        assert found["memory"][step] > 100, "a process that has imported torch"


def test_the_gradient_norm_is_that_of_every_parameter(watched):
    work_dir, norms = watched
    found = scalars(work_dir)["grad_norm"]
    assert len(set(norms.values())) > 10
    assert found == pytest.approx(norms, rel=1e-5)  # float32 sums against float64


def test_the_line_says_everything_once(watched):
    (log,) = watched[0].glob("*/*.log")
    lines = [line for line in log.read_text().splitlines() if "Epoch(train)" in line]
    assert len(lines) == STEPS * EPOCHS
    for line in lines:
        names = re.findall(r"([\w/]+): ", line.split("]  ", 1)[1])
        assert len(names) == len(set(names)), line
        assert {"lr", "eta", "time", "data", "images/s", "memory", "grad_norm", "loss"} <= set(names)
        assert {"loss_reconstruction", "loss_consistency"} <= set(names)


def test_watching_changes_nothing(plain, watched):
    expected, found = weights(plain), weights(watched[0])
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_panels_show_the_same_images_under_the_same_masks(watched):
    folder = watched[0] / "reconstructions"
    assert sorted(path.name for path in folder.iterdir()) == [f"epoch_{n}.png" for n in (1, 2, 3)]
    assert scalars(watched[0])["images"] == {"reconstruction": [STEPS, 2 * STEPS, 3 * STEPS]}
    rows = [np.asarray(Image.open(folder / f"epoch_{n}.png").convert("RGB")).astype(int) for n in (1, 3)]
    height = rows[0].shape[0]
    assert np.array_equal(rows[0][: height // 5], rows[1][: height // 5]), "original and visible patches"
    assert not np.array_equal(*rows), "what the model paints"


def test_the_probe_is_the_knn_config(images, watched, tmp_path):
    options = {"test_cfg.k": (3, 5), "test_cfg.primary_k": 5}
    probed = train(tmp_path / "probed", images, "train_cfg = dict(max_epochs=2)\n" + FLAT + PROBE)
    cfg = launch.prepare_config("classification/demo/knn_vit-demo_demo.py", work_dir=tmp_path / "knn",
                                data_root=images, pretrained=probed / "encoder.pth", cfg_options=options)  # fmt: skip
    metrics = launch.run(cfg, quiet=True)
    found = scalars(probed)
    for name in ("knn/top1", "knn/top1_k3", "knn/top1_k5"):
        assert found[name][2 * STEPS] == pytest.approx(metrics[name], rel=1e-6)  # float32 in the event file


def test_waiting_for_data_shows(images, tmp_path):
    more = "log_processor = dict(window_size=50)\n" + ONE_EPOCH
    cfg = launch.prepare_config(config_file(tmp_path, more), work_dir=tmp_path / "work", data_root=images)
    cfg.train_dataloader.dataset.pipeline.insert(0, dict(type="emae_mm.SlowTransform"))
    launch.run(cfg, quiet=True)
    found = scalars(tmp_path / "work")
    assert found["data_time_share"][STEPS] > 50, "200 ms of loading, some 50 ms of computing"


def test_a_loss_that_is_not_finite_names_the_files(images, tmp_path):
    poison = "custom_hooks = [dict(type='emae_mm.PoisonHook', step=9)]"
    with pytest.raises(UserError, match=r"(?s)iteration 9:.*non_finite\.json.*epoch_1\.pth"):
        train(tmp_path, images, poison)
    report = json.loads((tmp_path / "work/non_finite.json").read_text())
    assert (report["iteration"], report["epoch"], report["seed"]) == (9, 2, 0)
    (process,) = report["processes"]
    assert process["losses"]["loss_reconstruction"] == "nan" and process["losses"]["loss_consistency"] > 0
    assert len(process["files"]) == BATCH and all(Path(name).is_file() for name in process["files"])
    assert report["learning_rates"]["lr"][0] > 0
    saved = torch.load(report["last_good_checkpoint"], weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values() if value.is_floating_point())


def test_gradient_norms_are_counted_once_an_optimiser_step(images, tmp_path):
    cfg = launch.prepare_config(
        config_file(tmp_path, WATCHED + ONE_EPOCH, 8), work_dir=tmp_path / "work", data_root=images
    )
    cfg.train_dataloader.batch_size, cfg.reconstruction_panel = 4, None
    launch.run(cfg, quiet=True)
    assert list(WatchedHook.norms) == [2, 4, 6]
    found = scalars(tmp_path / "work")["grad_norm"]
    assert {step: found[step] for step in (2, 4, 6)} == pytest.approx(WatchedHook.norms, rel=1e-5)


def test_a_fused_optimisers_loss_scale_is_taken_out():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([300.0, 400.0])
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    assert gradient_norm(optimizer) == 500
    optimizer.grad_scale = torch.tensor(100.0)
    assert gradient_norm(optimizer) == 5


def test_images_of_a_batch():
    views = [torch.zeros(5, 3, 4, 4)] * 2
    assert images_in(dict(inputs=views)) == images_in(dict(inputs=views[0])) == 5
    assert images_in(dict(inputs=[torch.zeros(3, 4, 4)] * 7)) == 7
    assert images_in(dict(inputs=views, data_samples=[None] * 5)) == 5


def test_undisturbed_restores_modes_and_random_states():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2).eval())
    state = torch.get_rng_state()
    expected = torch.rand(1)
    torch.set_rng_state(state)
    with undisturbed(model) as quiet:
        torch.rand(5)
        assert not quiet.training and not quiet[0].training and not torch.is_grad_enabled()
    assert torch.equal(torch.rand(1), expected) and model[0].training and not model[1].training


@pytest.mark.parametrize("tracker, backend", [("wandb", "WandbVisBackend"), ("mlflow", "MLflowVisBackend")])
def test_trackers(tmp_path, monkeypatch, tracker, backend):
    cfg = launch.prepare_config(config_file(tmp_path), work_dir=tmp_path / "run7", tracker=tracker)
    monkeypatch.setattr(watch, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'emae-mm\[{tracker}\]'"):
        watch.check_tracker(cfg)
    monkeypatch.setattr(watch, "find_spec", lambda name: object())
    watch.check_tracker(cfg)
    watch.watch(cfg)
    watch.watch(cfg)
    kinds = [each["type"] for each in cfg.visualizer.vis_backends]
    assert kinds == ["LocalVisBackend", "TensorboardVisBackend", backend], "once"
    with pytest.raises(ConfigError, match="'foo' is unknown"):
        watch.check_tracker(Config(dict(tracker="foo")))


def test_impossible_wishes_are_refused_before_training(images, tmp_path):
    for number, (more, message) in enumerate({
        "knn_probe = dict(interval=0)": "interval=0",
        "knn_probe = dict(primary_k=7)": "primary_k=7",
        "knn_probe = dict(k=(99,), primary_k=99)": "bank of 24",
        "knn_probe = dict(queries='nowhere')": "nowhere",
        "reconstruction_panel = dict(interval=1, masks=1)": "masks=1",
        "reconstruction_panel = dict(interval=1, masks=7)": "7",
    }.items()):  # fmt: skip
        with pytest.raises((ConfigError, DataError), match=message):
            train(tmp_path / str(number), images, more)
        assert not list((tmp_path / str(number) / "work").glob("*.pth"))


def one_of_two(rank: int, images: str, folder: str, port: str) -> None:
    """A process of the last test: its error goes to a file."""
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    cfg = launch.prepare_config(Path(folder) / "emae.py", work_dir=Path(folder) / "work", data_root=images,
                                launcher="pytorch")  # fmt: skip
    torch.set_num_threads(1)
    try:
        launch.run(cfg, quiet=True)
    except UserError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))


def test_two_processes_stop_together_and_probe_alike(images, plain, tmp_path):
    """Process 1 alone has a NaN, at step 9 of 18 (each step 4 images of 2 processes)."""
    config_file(tmp_path, PROBE.replace("interval=2", "interval=1") + "\n"
                "custom_hooks = [dict(type='emae_mm.PoisonHook', step=9, rank=1)]")  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO)}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(images), str(tmp_path), port], env=environment)
        for rank in range(2)
    ]
    assert [process.wait(timeout=200) for process in processes] == [0, 0]
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text()
    report = json.loads((tmp_path / "work/non_finite.json").read_text())
    assert [process["finite"] for process in report["processes"]] == [True, False]
    files = [name for process in report["processes"] for name in process["files"]]
    assert len(files) == len(set(files)) == BATCH
    found = scalars(tmp_path / "work")
    assert list(found["knn/top1"]) == [STEPS]
    assert found["images_per_s"][2] == pytest.approx(BATCH / found["time"][2], rel=1e-3)


if __name__ == "__main__":  # the last test starts this file twice
    one_of_two(int(sys.argv[1]), *sys.argv[2:])
