"""``emae-mm transfer`` and ``emae-mm evaluate`` from end to end on the embedded data."""

import sys
from pathlib import Path

import pytest
import torch

from emae_mm import cli
from emae_mm.checkpoints import export_encoder
from emae_mm.data.demo import make_demo_dataset
from emae_mm.engine import launch
from emae_mm.leaderboard import read_record
from emae_mm.models import ViTEncoder

TWO_EPOCHS = ["--cfg-options", "train_cfg.max_epochs=2", "--cfg-options", "train_cfg.val_interval=2"]
NO_PICTURES = ["--cfg-options", "pictures=None"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_demo_dataset(
        tmp_path_factory.mktemp("runs") / "data", num_train=120, num_val=20, dense_train=10, dense_val=10
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.pth"
    model = ViTEncoder(arch=dict(embed_dim=128, depth=4, num_heads=4), img_size=64, patch_size=8)
    export_encoder(model, path, dict(method="EMAE", arch="ViT-128x4/8", data="emae-demo", epochs=5))
    return path


@pytest.fixture(autouse=True)
def _quiet_machine(monkeypatch, tmp_path):
    monkeypatch.setattr("mmengine.runner.runner.collect_env", dict)  # a second a run for a log nobody reads here
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["emae-mm", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err, captured.err
    return ended.value.code or 0, captured.out


def only_record(folder: Path) -> Path:
    found = [path for path in folder.rglob("record.json") if "evaluation" not in path.parts]
    assert len(found) == 1
    return found[0]


def test_knn_ends_with_its_record_and_a_second_call_only_reports(tmp_path, data, encoder, monkeypatch, capsys):
    command = ["transfer", encoder, "--task", "knn", "--data-root", data, "--quick", "--cpu", *NO_PICTURES]
    code, out = call(monkeypatch, capsys, *command)
    path = only_record(tmp_path)
    record = read_record(path)
    assert code == 0 and "[1/1] knn of encoder.pth (EMAE, ViT-128x4/8): done" in out and path.parent.name in out
    assert (record.task, record.method, record.data) == ("imagenet-knn", "EMAE", "emae-demo")
    before = path.read_bytes()
    code, out = call(monkeypatch, capsys, *command)
    assert code == 0 and "finished before" in out and "[1/1]" not in out and path.read_bytes() == before

    # k-NN trains nothing, so evaluating is measuring again
    code, out = call(monkeypatch, capsys, "evaluate", path.parent, "--cpu")
    again = read_record(path.parent / "evaluation" / "record.json")
    assert code == 0 and again.metrics == record.metrics and again.encoder == record.encoder
    assert "the same as in the run's own record" in out


def test_linear_goes_on_where_it_was_interrupted_and_evaluates_to_the_same_number(
    tmp_path, data, encoder, monkeypatch, capsys
):
    command = ["transfer", encoder, "--task", "linear", "--data-root", data / "classification", "--quick", "--cpu"]
    command += [*TWO_EPOCHS, *NO_PICTURES, "--seed", "3"]
    real, steps = launch.run, []

    def watched(cfg, progress=None, **kwargs):
        def report(step, total, loss=None, what="step"):
            steps.append((what, step))
            if len(steps) == 5:  # three steps an epoch: the first epoch has left its checkpoint
                raise KeyboardInterrupt
            progress(step, total, loss, what=what)

        return real(cfg, progress=report, **kwargs)

    monkeypatch.setattr(launch, "run", watched)
    code, out = call(monkeypatch, capsys, *command)
    assert code == 130 and "interrupted; the same command goes on from the last checkpoint" in out
    code, out = call(monkeypatch, capsys, *command)
    assert code == 0 and [step for what, step in steps[5:] if what == "step"] == [4, 5, 6]
    monkeypatch.setattr(launch, "run", real)
    path = only_record(tmp_path)
    record = read_record(path)
    assert record.seed == 3 and record.num_samples == 20
    assert record.protocol.startswith("demo-linear-5e, with ") and "pictures" not in record.protocol

    evaluate = ["evaluate", "--cpu"]
    code, out = call(monkeypatch, capsys, *evaluate, path.parent)
    again = read_record(path.parent / "evaluation" / "record.json")
    assert code == 0 and "the same as in the run's own record" in out
    assert again.metrics == record.metrics and again.protocol == record.protocol
    assert (again.method, again.data, again.encoder) == ("EMAE", "emae-demo", record.encoder)
    assert "evaluated again from epoch_2.pth" in again.notes

    # a checkpoint of the middle of a run is not what its protocol yields
    code, out = call(monkeypatch, capsys, *evaluate, path.parent / "epoch_1.pth", "--work-dir", tmp_path / "half")
    assert code == 0 and read_record(tmp_path / "half" / "record.json").protocol.endswith(", stopped at epoch 1 of 2")

    # a checkpoint that has lost its folder needs a config
    moved = tmp_path / "alone" / "epoch_2.pth"
    moved.parent.mkdir()
    moved.write_bytes((path.parent / "epoch_2.pth").read_bytes())
    config = ["--config", "classification/demo/linear_vit-demo_demo.py", "--data-root", data / "classification"]
    code, out = call(monkeypatch, capsys, *evaluate, moved, *config)
    alone = read_record(moved.parent / "evaluation" / "record.json")
    assert code == 0 and alone.metrics["top1"] == record.metrics["top1"]


def test_a_quick_run_of_a_detection_config_goes_the_whole_way(tmp_path, data, encoder, monkeypatch, capsys):
    command = ["transfer", encoder, "--task", "maskrcnn", "--data-root", data, "--quick", "--cpu", *NO_PICTURES]
    config = ["--config", "detection/demo/mask-rcnn_vit-demo_demo.py"]  # shortened as one of full size would be
    code, out = call(monkeypatch, capsys, *command, *config)
    path = only_record(tmp_path)
    record = read_record(path)
    assert code == 0 and "it is not ranked" in out
    assert record.protocol.startswith("quick run of demo-maskrcnn") and record.data == "emae-demo"
    assert record.num_samples == 2 and {"box_AP", "mask_AP"} <= set(record.metrics)

    code, out = call(monkeypatch, capsys, "evaluate", path.parent, "--cpu")
    again = read_record(path.parent / "evaluation" / "record.json")
    assert code == 0 and again.metrics == record.metrics


def test_segmentation_is_evaluated_at_several_scales_under_a_name_of_its_own(
    tmp_path, data, encoder, monkeypatch, capsys
):
    options = ["train_cfg.max_iters=11", "train_cfg.val_interval=11"]  # after ten of warm-up
    command = ["transfer", encoder, "--task", "upernet", "--data-root", data, "--quick", "--cpu", *NO_PICTURES]
    code, _ = call(monkeypatch, capsys, *command, *(word for option in options for word in ("--cfg-options", option)))
    path = only_record(tmp_path)
    record = read_record(path)
    assert code == 0 and record.num_samples == 10
    code, out = call(monkeypatch, capsys, "evaluate", path.parent, "--multi-scale", "--cpu")
    several = read_record(path.parent / "evaluation-multi-scale" / "record.json")
    assert code == 0 and several.protocol == f"{record.protocol}-ms" and several.num_samples == 10
    assert several.protocol in " ".join(out.split())


def test_two_processes_train_one_probe(tmp_path, data, encoder, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = ["transfer", encoder, "--task", "linear", "--quick", "--cpu", "--processes", "2", *TWO_EPOCHS]
    code, out = call(monkeypatch, capfd, *command, "--data-root", data / "classification", *NO_PICTURES)
    record = read_record(only_record(tmp_path))
    assert code == 0 and record.hardware.processes == 2 and record.num_samples == 20
    assert out.count(": done (") == 1 and "2 processes on the CPU" in out, "one process speaks"
