"""One process, DDP, FSDP, accumulation, recomputed activations, bfloat16 and compilation: the same training.

The runs are those of a tiny EMAE (4 optimiser steps) in ``scale_run.py``, which forks them from one process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import OptimWrapper
from torch import nn

from emae_mm.engine import distributed
from emae_mm.engine.blocks import checkpoint_activations, units
from emae_mm.engine.compilation import compile_options, compile_target, require_compiler
from emae_mm.engine.precision import check_precision
from emae_mm.engine.schedule import scale_learning_rate
from emae_mm.errors import ConfigError, UserError
from emae_mm.models.algorithms import EMAE

HERE = Path(__file__).parent
# float32: gradients are summed in another order; 2e-7 was measured on losses of 1.3, and 1e-7 on weights
LOSSES, WEIGHTS = dict(rtol=2e-6), dict(rtol=0, atol=2e-6)
# bfloat16 has 8 bits of mantissa: 2**-8 = 4e-3 an operation; 2e-4 was measured on the losses
BFLOAT16 = dict(rtol=4e-3)
EAGER = {"compile": {"backend": "aot_eager"}}  # traced as for inductor, without its minutes of C++ compilation
SMALL = {"train_dataloader.batch_size": 4}
ODD = {**SMALL, "global_batch_size": 12}  # 8 passes an epoch, 3 a step
SHARDED = dict(processes=2, fsdp=True)

SCENARIOS = {
    "one": {},
    "ddp": dict(processes=2),
    "fsdp": dict(**SHARDED),
    "accumulated": dict(cfg_options=SMALL, auto_scale_lr=True),
    "recomputed": dict(activation_checkpointing=True),
    "bfloat16": dict(amp=True),
    "odd": dict(cfg_options=ODD),
    "odd_resumed": dict(cfg_options=ODD, resume="odd/epoch_1.pth"),
    "fsdp_to_fsdp": dict(**SHARDED, resume="fsdp/epoch_1.pth"),
    "fsdp_to_one": dict(resume="fsdp/epoch_1.pth"),
    "one_to_fsdp": dict(**SHARDED, resume="one/epoch_1.pth"),
    "one_to_ddp_compiled": dict(processes=2, cfg_options=EAGER, resume="one/epoch_1.pth"),
    "all": dict(**SHARDED, amp=True, activation_checkpointing=True, cfg_options=EAGER),
    "fsdp_odd": dict(**SHARDED, cfg_options={**SMALL, "global_batch_size": 24}),
}
REFUSED = {"fsdp_odd"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repo) -> Path:
    """Work directories of all scenarios, by name, and ``stderr.txt``."""
    folder = tmp_path_factory.mktemp("scale")
    text = (HERE / "scale_run.py").read_text()
    (folder / "emae.py").write_text(text.split('CONFIG = """')[1].split('"""')[0])
    scenarios = [dict(config="emae.py", work_dir=name, **options) for name, options in SCENARIOS.items()]
    (folder / "scenarios.json").write_text(json.dumps(scenarios))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(repo), str(HERE)]),
    }
    command = [sys.executable, str(HERE / "scale_run.py"), "scenarios.json", "codes.json"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "stderr.txt").write_text(done.stderr)
    codes = dict(zip(SCENARIOS, json.loads((folder / "codes.json").read_text()), strict=True))
    assert codes == {name: 2 if name in REFUSED else 0 for name in SCENARIOS}, done.stderr[-4000:]
    return folder


def _losses(work_dir: Path, rank: int = 0) -> np.ndarray:
    return np.array([float(line.split()[1]) for line in (work_dir / f"losses_{rank}.txt").read_text().splitlines()])


def _checkpoint(work_dir: Path) -> dict:
    return torch.load(work_dir / "epoch_2.pth", weights_only=True)


def _assert_same_end(work_dir: Path, expected: Path, **tolerance) -> None:
    ours, theirs = _checkpoint(work_dir), _checkpoint(expected)
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], **tolerance)
    torch.testing.assert_close(ours["optimizer"]["state"], theirs["optimizer"]["state"], **tolerance)


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_train_as_one(runs, name):
    for rank in (0, 1):
        np.testing.assert_allclose(_losses(runs / name, rank), _losses(runs / "one"), **LOSSES)
    _assert_same_end(runs / name, runs / "one", **WEIGHTS)


def test_four_accumulated_passes_are_one_batch_four_times_as_large(runs):
    passes, whole = _losses(runs / "accumulated"), _losses(runs / "one")
    assert len(passes) == 16 and len(whole) == 4
    np.testing.assert_allclose(passes.reshape(4, 4).mean(axis=1), whole, **LOSSES)
    _assert_same_end(runs / "accumulated", runs / "one", **WEIGHTS)


def test_a_checkpoint_within_an_accumulation_keeps_its_gradients(runs):
    assert torch.load(runs / "odd/epoch_1.pth", weights_only=True)["partial_gradients"]  # 8 passes: 2 of 3 made
    np.testing.assert_array_equal(_losses(runs / "odd_resumed"), _losses(runs / "odd")[8:])
    _assert_same_end(runs / "odd_resumed", runs / "odd", rtol=0, atol=0)
    assert "partial_gradients" not in _checkpoint(runs / "odd")  # the last step takes what is left


def test_fsdp_refuses_epochs_that_end_within_an_accumulation(runs):
    assert "an epoch of 4 batches a process ends within an accumulation of 3" in (runs / "stderr.txt").read_text()


def test_recomputed_activations_change_nothing(runs):
    np.testing.assert_array_equal(_losses(runs / "recomputed"), _losses(runs / "one"))
    _assert_same_end(runs / "recomputed", runs / "one", rtol=0, atol=0)


@pytest.mark.parametrize("name", ["fsdp_to_fsdp", "fsdp_to_one", "one_to_fsdp", "one_to_ddp_compiled"])
def test_a_run_goes_on_sharded_or_not(runs, name):
    np.testing.assert_allclose(_losses(runs / name), _losses(runs / "one")[2:], **LOSSES)
    _assert_same_end(runs / name, runs / "one", **WEIGHTS)


def test_a_run_resumed_under_fsdp_is_bit_identical(runs):
    np.testing.assert_array_equal(_losses(runs / "fsdp_to_fsdp"), _losses(runs / "fsdp")[2:])
    _assert_same_end(runs / "fsdp_to_fsdp", runs / "fsdp", rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bfloat16", "all"])
def test_bfloat16_follows_float32(runs, name):
    assert (_losses(runs / name) != _losses(runs / "one")).all()
    np.testing.assert_allclose(_losses(runs / name), _losses(runs / "one"), **BFLOAT16)


@pytest.mark.parametrize("name", ["fsdp", "all", "one_to_ddp_compiled"])
def test_exported_encoders_load_into_timm(runs, name):
    exported = torch.load(runs / name / "encoder.pth", weights_only=True)["model"]
    vit = timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    vit.load_state_dict(exported, strict=True)
    weights = _checkpoint(runs / name)["state_dict"]
    assert all(torch.equal(value, weights[f"backbone.{key}"]) for key, value in exported.items())
    assert not any("_orig_mod" in key or "_fsdp" in key for key in weights)
    assert (runs / name / "record.json").is_file()


def _emae() -> EMAE:
    backbone = dict(arch=dict(embed_dim=16, depth=1, num_heads=2), img_size=16, patch_size=4)
    return EMAE(backbone=backbone, decoder=dict(decoder_dim=8, depth=1, num_heads=2), num_parts=4)


def test_compiled_equals_eager(monkeypatch):
    try:
        require_compiler({})
    except UserError:
        pytest.skip("inductor needs a C++ compiler, and this machine has none")
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    model, names = _emae(), list(_emae().state_dict())
    images, orders = torch.randn(2, 3, 16, 16), torch.rand(2, 1, 16).argsort(-1)
    eager = model.losses(images, orders)
    eager_gradients = torch.autograd.grad(sum(eager.values()), [p for p in model.parameters() if p.requires_grad])
    assert compile_target(model, compile_options(True)) == "losses"
    compiled = model.losses(images, orders)
    gradients = torch.autograd.grad(sum(compiled.values()), [p for p in model.parameters() if p.requires_grad])
    # float32: fused kernels round otherwise; 3e-7 was measured
    torch.testing.assert_close(compiled, eager, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(gradients, eager_gradients, rtol=1e-4, atol=2e-6)
    assert list(model.state_dict()) == names


def test_the_option_may_name_what_is_compiled():
    assert compile_options(False) is compile_options(None) is compile_options(dict(disable=True)) is None
    model = nn.Module()
    model.backbone = nn.Linear(3, 3)
    assert compile_target(model, dict(backend="eager")) == "backbone.forward"
    with pytest.raises(ConfigError, match="no method head"):
        compile_target(model, dict(target="head.forward"))
    with pytest.raises(ConfigError, match="neither True nor a dict"):
        compile_options("losses")


def test_units_are_the_encoder_blocks_and_the_decoder():
    model = _emae()
    assert list(units(model)) == ["backbone.blocks.0", "decoder"]
    assert checkpoint_activations(model, ["decoder"]) == ["decoder"]
    with pytest.raises(ConfigError, match="no module 'neck'"):
        checkpoint_activations(model, ["neck"])
    with pytest.raises(ConfigError, match="no transformer block"):
        checkpoint_activations(nn.Linear(2, 2), True)


def test_the_last_accumulation_is_the_mean_of_what_is_left():
    """6 passes in groups of 4 are a step of the mean of 4 and one of the mean of 2."""
    inputs, runs = torch.arange(1.0, 7.0), []
    for groups in ([1] * 6, [4, 2]):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(layer.weight)
        accumulated = 4 if len(groups) == 6 else 1
        wrapper = OptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.01), accumulative_counts=accumulated)
        wrapper.initialize_count_status(layer, 0, len(groups))
        for batch in inputs.split(groups):
            wrapper.update_params(layer(batch[:, None]).square().mean())
        runs.append(layer.weight.item())
    assert runs[0] == pytest.approx(runs[1], rel=1e-6)  # float32


def test_learning_rates_scale_with_accumulated_batches(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    cfg = Config(
        dict(
            launcher="pytorch",
            train_dataloader=dict(batch_size=8),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3), accumulative_counts=4),
            auto_scale_lr=dict(base_batch_size=128, enable=True),
        )
    )
    assert "0.0005 for one of 64" in scale_learning_rate(cfg)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(5e-4)
    assert scale_learning_rate(cfg) == ""  # once only
    cfg.auto_scale_lr = ConfigDict(enable=True)
    with pytest.raises(ConfigError, match="base_batch_size"):
        scale_learning_rate(cfg)


def test_float16_on_a_cpu_is_one_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="does not run on a CPU"):
        check_precision(Config(dict(optim_wrapper=dict(type="AmpOptimWrapper", dtype="float16"))))


def test_other_strategies_are_refused_and_one_process_needs_none():
    with pytest.raises(ConfigError, match="'DeepSpeedStrategy' is not supported"):
        distributed.choose_strategy(Config(dict(launcher="pytorch", strategy=dict(type="DeepSpeedStrategy"))))
    cfg = Config(dict(launcher="none", strategy=dict(type="FSDPStrategy")))
    assert distributed.choose_strategy(cfg) == "BenchmarkRunner" and "strategy" not in cfg


def _stub(folder: Path, name: str, text: str) -> dict:
    script = folder / name
    script.write_text(f"#!/usr/bin/env bash\n{text}\n")
    script.chmod(0o755)
    return os.environ | {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}


def test_several_machines_are_told_of_each_other(repo, tmp_path):
    environment = _stub(tmp_path, "python", 'printf "%s\\n" "$@"')
    environment |= dict(NNODES="3", NODE_RANK="2", MASTER_ADDR="10.0.0.1", PORT="1234")
    command = [str(repo / "tools/dist_train.sh"), "config.py", "8", "--fsdp"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = ["--nnodes=3", "--node_rank=2", "--master_addr=10.0.0.1", "--master_port=1234", "--nproc_per_node=8"]
    assert set(wanted) < set(shown)
    assert shown[-4:] == ["config.py", "--launcher", "pytorch", "--fsdp"]


@pytest.mark.parametrize(("gres", "passed"), [(None, "--gres=gpu:4"), ("", None), ("gpu:a100:4", "--gres=gpu:a100:4")])
def test_slurm_is_asked_for_what_there_is(repo, tmp_path, gres, passed):
    environment = _stub(tmp_path, "srun", 'printf "%s\\n" "$@"') | dict(GPUS="8", GPUS_PER_NODE="4")
    environment |= {} if gres is None else {"GRES": gres}
    command = [str(repo / "tools/slurm_train.sh"), "part", "job", "config.py", "work", "--fsdp"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [word for word in shown if word.startswith("--gres")] == ([passed] if passed else [])
    assert "--ntasks=8" in shown and "--ntasks-per-node=4" in shown and shown[-1] == "--fsdp"


def test_slurm_without_gpus_finds_its_first_machine(tmp_path, monkeypatch):
    environment = _stub(tmp_path, "scontrol", 'echo node7; echo "asked $*" >&2')
    joined = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.distributed, "init_process_group", joined.append)
    settings = dict(SLURM_PROCID="3", SLURM_NTASKS="4", SLURM_NODELIST="node[7-8]", PATH=environment["PATH"])
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set here is undone
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    distributed.init_distributed("slurm")
    assert joined == ["gloo"]
    assert (os.environ["RANK"], os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("3", "node7", "29500")
