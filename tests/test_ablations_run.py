"""Two cells of an ablation suite from pre-training to tables, in parallel processes, with one that fails."""

import io
import os
import struct
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest
from rich.console import Console

from emae_mm.data.demo import make_demo_dataset
from emae_mm.errors import ConfigError, UserError
from emae_mm.leaderboard import read_record
from emae_mm.suite import parallel, run_suite
from emae_mm.suite.ledger import Ledger
from emae_mm.suite.parallel import run_in_processes
from emae_mm.suite.plan import Stage

SUITE = """
name = 'small'
epoch_scale = 0.01
pretrain = {{
    'EMAE': dict(config='{pretrain}', data='classification', options={{'model.log_prediction_variance': True}}),
    'EMAE, K=7': dict(config='{pretrain}', data='classification', options={{'model.num_parts': {parts}}}),
}}
transfer = {{'linear probe': dict(config='{probe}', data='classification')}}
tables = dict(XIV=dict(
    title='Table XIV', epochs=[100], seeds={seeds},
    published=dict(source_table='Table XIV'), pretrain_metrics=['prediction_variance'],
    rows=[dict(label='four', run='EMAE', published=dict(method_in_source='(b) EMAE K = 4')),
          dict(label='seven', run='EMAE, K=7', published=dict(method_in_source='(d) EMAE K = 7'))]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_dataset(
        tmp_path_factory.mktemp("suite") / "data", num_train=80, num_val=20, dense_train=10, dense_val=10
    )


@pytest.fixture
def suite(tmp_path, repo):
    def write(parts: int = 7, seeds: int = 2):
        probe = tmp_path / "probe.py"
        probe.write_text(
            f"_base_ = '{repo}/configs/classification/ablation/linear_vit-ablation_demo.py'\n"
            "train_cfg = dict(max_epochs=2, val_interval=2)\n"
        )
        path = tmp_path / "suite.py"
        pretrain = repo / "configs/pretrain/ablation/emae_vit-ablation_demo.py"
        path.write_text(SUITE.format(pretrain=pretrain, probe=probe, parts=parts, seeds=seeds))
        return path

    return write


def call(suite, data, out, jobs) -> str:
    console = Console(file=io.StringIO(), width=160)
    run_suite(suite, data, out, console, jobs=jobs)
    return console.file.getvalue()


def test_cells_run_in_parallel_once_and_end_in_a_table(suite, data, tmp_path):
    out = tmp_path / "out"
    shown = call(suite(), data, out, jobs=2)
    records = {path: path.read_bytes() for path in out.rglob("record.json")}
    assert len(records) == 8  # two variants, two seeds, each pre-trained and probed
    probes = [read_record(out / f"emae--k-7/1-epochs/seed-{seed}/linear-probe/record.json") for seed in (0, 1)]
    assert [p.seed for p in probes] == [0, 1] and probes[0].encoder.sha256 != probes[1].encoder.sha256
    assert {(p.method, p.pretrain_epochs) for p in probes} == {("EMAE, K=7", 1)}
    assert all(p.pretrain_protocol.endswith("with model.num_parts=7") for p in probes)
    trained = read_record(out / "emae/1-epochs/seed-0/pretrain/record.json")
    assert trained.metrics["prediction_variance"].value > 0 and trained.primary == "loss"
    mean = sum(p.metrics["top1"].value for p in probes) / 2
    assert f"{mean:.1f} ± " in shown and "60.5" in shown and "not measured" not in shown
    assert (out / "tables" / "tables.md").is_file() and (out / "leaderboard" / "leaderboard.html").is_file()

    again = call(suite(), data, out, jobs=1)
    assert again.count("finished before") == 8
    assert {path: path.read_bytes() for path in out.rglob("record.json")} == records


def test_a_cell_that_fails_loses_no_other_and_is_shown_as_missing(suite, data, tmp_path):
    console = Console(file=io.StringIO(), width=160)
    with pytest.raises(UserError, match="num_parts=5 does not divide"):
        run_suite(suite(parts=5, seeds=1), data, tmp_path / "out", console, jobs=2)
    shown = console.file.getvalue()
    assert "skipped, as what it needs failed" in shown and "not measured" in shown
    assert (tmp_path / "out" / "emae/1-epochs/seed-0/linear-probe/record.json").is_file()


def test_a_process_that_dies_is_reported(tmp_path):
    (tmp_path / "config.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    ended = []

    class Line:
        def end(self, outcome):
            ended.append(outcome)

    ledger = Ledger()
    first = Stage("first", "pretrain", tmp_path / "first", config=tmp_path / "config.py")
    then = Stage("then", "transfer", tmp_path / "then", after=first.work_dir)
    run_in_processes([then, first], 2, ledger, lambda stage: Line())
    assert "exit code -9" in ended[0] and ended[1].startswith("skipped")
    with pytest.raises(UserError, match="first stopped: its process died"):
        ledger.raise_failures()


def test_a_process_that_dies_within_a_message_is_reported(tmp_path):
    receiver, sender = Pipe(duplex=False)
    os.write(sender.fileno(), struct.pack("!i", 100) + b"half of it")
    sender.close()
    ended, ledger = [], Ledger()
    process = SimpleNamespace(is_alive=lambda: True, join=lambda: None, exitcode=-9)
    stage = Stage("first", "pretrain", tmp_path / "first", config=tmp_path / "config.py")
    assert parallel._listen(receiver, parallel._Job(stage, process, SimpleNamespace(end=ended.append)), ledger)
    assert "exit code -9" in ended[0] and ledger.is_lost(Stage("then", "transfer", tmp_path, after=stage.work_dir))


def test_wrong_calls_are_refused(suite, tmp_path):
    with pytest.raises(ConfigError, match="--jobs 0"):
        run_suite(suite(), tmp_path, tmp_path / "out", jobs=0)
    with pytest.raises(ConfigError, match="give --data-root"):
        run_suite(suite(), None, tmp_path / "out")
