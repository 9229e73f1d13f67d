"""A suite from pre-training to leaderboard, interrupted and called again."""

import io

import pytest
from rich.console import Console

from emae_mm.data.demo import make_demo_dataset
from emae_mm.engine import launch
from emae_mm.errors import UserError
from emae_mm.leaderboard import read_record
from emae_mm.suite import run_suite


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_dataset(
        tmp_path_factory.mktemp("suite") / "data", num_train=40, num_val=20, dense_train=10, dense_val=10
    )


@pytest.fixture
def suite(tmp_path, repo):
    """EMAE and a random start, pre-trained for three epochs of two steps, on k-NN alone."""
    pretrain, knn = tmp_path / "emae_small.py", tmp_path / "knn_small.py"
    pretrain.write_text(
        f"_base_ = '{repo}/configs/pretrain/demo/emae_vit-demo_demo.py'\ntrain_cfg = dict(max_epochs=3)\n"
    )
    knn.write_text(
        f"_base_ = '{repo}/configs/classification/demo/knn_vit-demo_demo.py'\ntest_cfg = dict(k=(5,), primary_k=5)\n"
    )
    path = tmp_path / "suite.py"
    path.write_text(
        "name = 'small'\n"
        f"pretrain = dict(EMAE=dict(config='{pretrain}', data='classification'))\n"
        "baselines = {'random init': 'random'}\n"
        f"transfer = {{'k-NN': dict(config='{knn}', data='classification')}}\n"
        "reconstruct = dict(data='classification', images=2, masks=4)\n"
    )
    return path


def call(suite, data, out) -> str:
    console = Console(file=io.StringIO(), width=160)
    run_suite(suite, data, out, console)
    return console.file.getvalue()


def test_a_suite_interrupted_goes_on_and_a_finished_one_repeats_nothing(suite, data, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    real, steps = launch.run, []

    def stop_in_third_epoch(cfg, progress=None, **kwargs):
        def watched(step, total, loss=None, what="step"):
            steps.append(step)
            if len(steps) == 5:
                raise KeyboardInterrupt
            progress(step, total, loss, what=what)

        return real(cfg, progress=watched, **kwargs)

    monkeypatch.setattr(launch, "run", stop_in_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        call(suite, data, out)
    assert steps == [1, 2, 3, 4, 5] and not (out / "emae" / "pretrain" / "record.json").exists()

    def count(cfg, progress=None, **kwargs):
        def watched(step, total, loss=None, what="step"):
            if what == "step":
                steps.append(step)
            progress(step, total, loss, what=what)

        return real(cfg, progress=watched, **kwargs)

    monkeypatch.setattr(launch, "run", count)
    steps.clear()
    first = call(suite, data, out)
    assert steps == [5, 6], "two epochs were finished: only the third runs again"
    assert "[1/5] pre-train EMAE" in first and "[5/5] leaderboard" in first
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.html"):
        assert (out / "leaderboard" / name).stat().st_size > 1000
    assert (out / "reconstructions" / "reconstructions.png").stat().st_size > 10_000

    records = {p: p.read_bytes() for p in out.rglob("record.json")}
    assert len(records) == 3
    steps.clear()
    second = call(suite, data, out)
    assert steps == [] and second.count("finished before") == 3
    assert {p: p.read_bytes() for p in out.rglob("record.json")} == records

    # the interrupted run ended where an uninterrupted one does
    call(suite, data, whole)
    interrupted, straight = (read_record(folder / "emae/pretrain/record.json") for folder in (out, whole))
    assert interrupted.encoder.sha256 == straight.encoder.sha256
    transferred = read_record(out / "emae/k-nn/record.json")
    assert transferred.method == "EMAE" and transferred.encoder.sha256 == interrupted.encoder.sha256
    assert transferred.pretrain_data == "emae-demo" and transferred.pretrain_epochs == 3
    assert transferred.num_samples == 20
    start = read_record(out / "random-init/k-nn/record.json")
    assert start.method == "random init" and start.encoder is None


def test_a_stage_that_fails_leaves_finished_ones_alone(suite, data, tmp_path):
    out = tmp_path / "out"
    call(suite, data, out)
    (out / "emae" / "k-nn" / "record.json").unlink()
    (out / "emae" / "pretrain" / "encoder.pth").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"encoder\.pth"):
        call(suite, data, out)
    assert (out / "emae" / "pretrain" / "record.json").is_file()
    assert (out / "random-init" / "k-nn" / "record.json").is_file()


def test_a_finished_transfer_tested_again_is_recorded_under_its_own_name(data, tmp_path):
    name, root = "classification/demo/linear_vit-demo_demo", data / "classification"
    options = {"train_cfg.max_epochs": 2, "train_cfg.val_interval": 2, "global_batch_size": 8}
    trained = launch.prepare_config(
        name, data_root=root, pretrained="random", work_dir=tmp_path / "train", cfg_options=options
    )
    top1 = launch.run(trained, quiet=True)["accuracy/top1"]
    record = read_record(tmp_path / "train" / "record.json")
    assert record.method == "random init" and record.arch == "ViT-128x4/8"
    assert record.metrics["top1"].value == pytest.approx(top1)
    # a recipe changed on the command line does not go by the config's protocol
    assert record.protocol.startswith("demo-linear-5e, with ") and "train_cfg.max_epochs=2" in record.protocol

    checkpoint = str(tmp_path / "train" / "epoch_2.pth")
    tested = launch.prepare_config(name, data_root=root, load_from=checkpoint, work_dir=tmp_path / "test")
    assert launch.test(tested, quiet=True)["accuracy/top1"] == top1
    again = read_record(tmp_path / "test" / "record.json")
    assert (again.method, again.arch, again.pretrain_epochs) == ("random init", "ViT-128x4/8", 0)
