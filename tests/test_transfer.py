"""One command per transfer: which protocol, what is refused, how it is launched, and a record's place."""

import io
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from rich.console import Console

from emae_mm import cli
from emae_mm.checkpoints import export_encoder
from emae_mm.checkpoints.convert import convert
from emae_mm.data.demo import is_demo_dataset, make_demo_dataset
from emae_mm.errors import ConfigError
from emae_mm.leaderboard import CodeVersion, FileIdentity, Hardware, Metric, Record, write_record
from emae_mm.models import ViTEncoder
from emae_mm.models.vit import ARCHITECTURES
from emae_mm.paths import find_config
from emae_mm.transfer.checks import look_at
from emae_mm.transfer.job import Job, configure
from emae_mm.transfer.layouts import recognise
from emae_mm.transfer.machine import Machine, choose_machine
from emae_mm.transfer.place import show_place
from emae_mm.transfer.start import environment, launch_command
from emae_mm.transfer.tasks import BASE, DEMO_ARCH, LARGE, TASKS, TINY_ARCH, choose, find_task

ONE_CPU = Machine("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_demo_dataset(
        tmp_path_factory.mktemp("transfer") / "data", num_train=40, num_val=20, dense_train=10, dense_val=10
    )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A demonstration encoder with what a pre-training writes beside it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.pth"
    model = ViTEncoder(arch=dict(embed_dim=128, depth=4, num_heads=4), img_size=64, patch_size=8)
    export_encoder(model, path, dict(method="EMAE", arch=DEMO_ARCH, data="emae-demo", epochs=5))
    return path


def configs_of(kind: str) -> list[tuple[str, str, str]]:
    return [(task.name, arch, path) for task in TASKS.values() for arch, path in getattr(task, kind).items()]


# --- tasks and configs


def test_every_task_has_a_full_size_config_for_base_and_large_and_small_variants():
    names = ["knn", "linear", "finetune", "maskrcnn", "vitdet", "vitdet-cascade", "upernet", "upernet-cae"]
    assert list(TASKS) == names
    for task in TASKS.values():
        assert {BASE, LARGE} <= set(task.protocols), task.name
        assert set(task.small) == {DEMO_ARCH, TINY_ARCH}, task.name


@pytest.mark.parametrize(("name", "arch", "path"), configs_of("protocols") + configs_of("small"))
def test_a_mapped_config_is_of_that_task_and_encoder(name, arch, path):
    cfg = Config.fromfile(find_config(path))
    assert cfg.record.task == TASKS[name].record_task
    backbone, letters = cfg.model.backbone, {"small": "ViT-S", "base": "ViT-B", "large": "ViT-L"}
    known = {
        (spec["embed_dim"], spec["depth"]): letters[name] for name, spec in ARCHITECTURES.items() if name in letters
    }
    size = ARCHITECTURES[backbone.arch] if isinstance(backbone.arch, str) else backbone.arch
    shape = (size["embed_dim"], size["depth"])
    named = known.get(shape, f"ViT-{shape[0]}x{shape[1]}")
    assert f"{named}/{backbone.patch_size}" == arch
    assert cfg.pretrained == ""


def test_the_protocol_follows_the_encoders_size_and_a_quick_run_its_small_variant():
    linear = find_task("linear")
    assert choose(linear, LARGE).config.name.startswith("linear_vit-large")
    assert choose(linear, BASE, quick=True).shorten
    small = choose(linear, DEMO_ARCH, quick=True)
    assert small.small and not small.shorten and small.config.parent.name == "demo"
    assert choose(linear, "ViT-B/14", resampled=True).config == choose(linear, BASE).config
    assert choose(linear, "ViT-128x4/16", quick=True, resampled=True).config == small.config
    own = choose(linear, "ViT-99x9/9", config="classification/linear-pooled_vit-base-p16_8xb2048-90e_in1k")
    assert own.config.stem.startswith("linear-pooled")
    with pytest.raises(ConfigError, match=r"no protocol for ViT-H/16; it has for .*ViT-B/16") as error:
        choose(linear, "ViT-H/16")
    assert "--config" in error.value.fix
    with pytest.raises(ConfigError, match="no protocol for ViT-B/14") as error:
        choose(linear, "ViT-B/14")
    assert "--resample-patch-embed" in error.value.fix
    with pytest.raises(ConfigError, match="published for ViT-128x4/8") as error:
        choose(linear, DEMO_ARCH)
    assert "--quick" in error.value.fix


# --- what a job's config says


@pytest.mark.parametrize(("name", "arch", "path"), configs_of("protocols"))
def test_the_batch_is_the_protocols_on_any_number_of_processes(tmp_path, name, arch, path):
    batches = dict(linear=16384, finetune=1024, maskrcnn=64, vitdet=64, upernet=16)
    batches |= {"vitdet-cascade": 64, "upernet-cae": 16}
    cfg = configure(Job("t", path, str(tmp_path), Machine("gpu", 4, "pytorch"), options=dict(pretrained="random")))
    assert cfg.get("global_batch_size") == batches.get(name)
    assert cfg.record.protocol == Config.fromfile(find_config(path)).record.protocol


def test_a_quick_run_never_claims_the_protocol_and_looks_at_few_images(tmp_path, data):
    for name in ("knn", "linear", "maskrcnn", "upernet"):
        task = TASKS[name]
        root = data / dict(imagenet="classification", coco="coco", ade20k="ade20k")[task.layout]
        job = Job(
            "t", task.protocols[BASE], str(tmp_path / name), ONE_CPU, quick_batch=2,
            options=dict(pretrained="random", data_root=str(root)),
        )  # fmt: skip
        full, quick = configure(replace(job, quick_batch=None)), configure(job)
        assert quick.record.protocol.startswith(f"quick run of {full.record.protocol}: ")
        assert quick.record.data == "emae-demo", "the demonstration data never go by another name"
        taken = quick.test_dataloader.dataset.indices
        assert (taken if isinstance(taken, int) else len(taken)) == 4
        if name != "knn":
            assert quick.global_batch_size == quick.train_dataloader.batch_size == 2
    # images of different classes, though the folders of classes follow each other
    assert len({index // 2 for index in configure(job_of(tmp_path, data)).test_dataloader.dataset.indices}) == 4


def job_of(tmp_path, data) -> Job:
    options = dict(pretrained="random", data_root=str(data / "classification"))
    return Job("t", TASKS["knn"].protocols[BASE], str(tmp_path), ONE_CPU, quick_batch=2, options=options)


def test_what_the_user_overrides_stays_overridden_in_a_quick_run(tmp_path, data):
    options = dict(pretrained="random", data_root=str(data / "ade20k"), cfg_options={"train_cfg.max_iters": 2})
    job = Job("t", TASKS["upernet"].protocols[BASE], str(tmp_path), ONE_CPU, quick_batch=2, options=options)
    cfg = configure(Job.from_json(job.to_json()))
    assert cfg.train_cfg.max_iters == 2 and "train_cfg.max_iters=2" in cfg.record.protocol


def test_float16_becomes_float32_on_a_cpu_and_the_record_says_so(tmp_path):
    job = Job("t", TASKS["maskrcnn"].protocols[BASE], str(tmp_path), ONE_CPU, options=dict(pretrained="random"))
    cfg = configure(job)
    assert cfg.optim_wrapper.type == "emae_mm.AutocastOptimWrapper" and cfg.optim_wrapper.dtype == "float32"
    assert "float32 on a CPU" in cfg.record.notes and "loss_scale" not in cfg.optim_wrapper
    assert cfg.record.protocol == "li2021-maskrcnn-fpn-100e"
    on_gpu = configure(replace(job, machine=Machine("gpu")))
    assert on_gpu.optim_wrapper.type == "AmpOptimWrapper" and not on_gpu.record.get("notes")


def test_multi_scale_takes_the_pipeline_and_loop_of_the_multi_scale_config(tmp_path):
    for name in ("upernet", "upernet-cae"):
        path = find_config(TASKS[name].protocols[LARGE])
        several = Config.fromfile(path.with_name(f"{path.stem}_ms.py"))
        copy = tmp_path / path.name
        Config.fromfile(path).dump(copy)
        cfg = configure(Job("t", str(copy), str(tmp_path / "out"), ONE_CPU, test=True, multi_scale=True))
        assert cfg.test_cfg == several.test_cfg and cfg.record.protocol == several.record.protocol
        assert cfg.test_dataloader.dataset.pipeline == several.test_dataloader.dataset.pipeline
    job = Job("t", TASKS["linear"].protocols[BASE], str(tmp_path / "out"), ONE_CPU, test=True, multi_scale=True)
    with pytest.raises(ConfigError, match="no multi-scale test"):
        configure(job)


# --- machines


def test_the_machine_is_what_is_asked_for_or_what_is_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_machine() == Machine("cpu") == choose_machine(cpu=True)
    assert choose_machine(cpu=True, processes=3) == Machine("cpu", 3, "pytorch")
    with pytest.raises(ConfigError, match="--gpus 8: this machine has none") as error:
        choose_machine(gpus=8)
    assert "--cpu" in error.value.fix
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_machine() == Machine("gpu") and choose_machine(gpus=2) == Machine("gpu", 2, "pytorch")
    with pytest.raises(ConfigError, match="--gpus 8: this machine has 2"):
        choose_machine(gpus=8)
    with pytest.raises(ConfigError, match="contradict"):
        choose_machine(gpus=1, cpu=True)
    with pytest.raises(ConfigError, match="--processes is for --cpu"):
        choose_machine(gpus=1, processes=2)


def test_slurm_gets_what_it_needs(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="partition"):
        choose_machine(launcher="slurm", gpus=8)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="no srun"):
        choose_machine(launcher="slurm", gpus=8, partition="a")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    machine = choose_machine(launcher="slurm", gpus=32, partition="a", gpus_per_node=8)
    job = Job("linear of x", "c.py", str(tmp_path), machine)
    command = launch_command(job, {"SRUN_ARGS": "--time=1:00 --qos=q", "CPUS_PER_TASK": "4"})
    for word in ("srun", "--partition=a", "--ntasks=32", "--ntasks-per-node=8", "--gres=gpu:8", "--cpus-per-task=4"):
        assert word in command
    assert "--qos=q" in command and Job.from_json(command[-1]) == job
    with pytest.raises(ConfigError, match="do not fill nodes"):
        choose_machine(launcher="slurm", gpus=12, partition="a")


def test_cpu_processes_see_no_gpu_and_share_the_cores(monkeypatch, tmp_path):
    job = Job("t", "c.py", str(tmp_path), Machine("cpu", 2, "pytorch"))
    own = environment(job, {"PATH": "p"})
    assert own["CUDA_VISIBLE_DEVICES"] == "" and int(own["OMP_NUM_THREADS"]) >= 1 and own["PATH"] == "p"
    assert environment(job, {"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"
    assert "--nproc_per_node=2" in launch_command(job, {})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert launch_command(replace(job, machine=ONE_CPU), {}) is not None, "GPUs can only be hidden from a new process"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert launch_command(replace(job, machine=ONE_CPU), {}) is None


# --- the place of a record


def record_of(protocol: str, data: str, top1: float, **extra) -> Record:
    return Record(
        task="imagenet-linear", protocol=protocol, data=data, method="Mine", arch=BASE, pretrain_data="ImageNet-1K",
        pretrain_epochs=300, metrics={"top1": Metric(top1)}, primary="top1", seed=0,
        config=FileIdentity("config.json", "0" * 64), code=CodeVersion("1"), libraries={"torch": "2"},
        hardware=Hardware("cpu"), wall_clock_s=1.0, **extra,
    )  # fmt: skip


def place(tmp_path, record: Record) -> str:
    write_record(record, tmp_path / "record.json")
    console = Console(file=io.StringIO(), width=180)
    show_place(tmp_path / "record.json", console)
    return console.file.getvalue()


def test_a_result_is_ranked_among_the_published_ones_of_its_protocol(tmp_path):
    text = place(tmp_path, record_of("mae-linear-probe-90e", "ImageNet-1K", 70.0))
    own = next(line for line in text.splitlines() if "this run" in line)
    assert "> " in own and "70.0" in own and "Mine" in own
    # published above 70.0: EMAE after 1600 epochs (71.2) and after 800 (70.4, in two versions of the paper)
    assert "top-1 70.0 %: place 3 of" in text and "71.2" in text and "70.4" in text
    assert "mae-linear-probe-50e" not in text and str(tmp_path / "record.json") in text


def test_a_quick_run_and_an_unpublished_protocol_have_no_place(tmp_path):
    quick = place(tmp_path, record_of("quick run of mae-linear-probe-90e: 3 steps", "emae-demo", 99.0))
    assert "it is not ranked" in quick and "place" not in quick and "70.4" in quick
    assert next(line for line in quick.splitlines() if "this run" in line).split("│")[2].strip() == "–"
    other = place(tmp_path, record_of("mine", "ImageNet-1K", 99.0, notes="something"))
    assert "nothing is published for mine on ImageNet-1K" in other and "note: something" in other


# --- bad input: one message and status 2, and nothing written


def call(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["emae-mm", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


def test_bad_input_is_one_message_before_anything_starts(tmp_path, data, encoder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    knn, good = ["--task", "knn"], ["--data-root", data, "--quick", "--cpu"]
    other = tmp_path / "other.pth"
    export_encoder(ViTEncoder(arch=dict(embed_dim=64, depth=2, num_heads=2), img_size=64, patch_size=8), other, {})
    cases = [
        ([encoder, "--task", "knnn", *good], "--task knnn is unknown"),
        ([encoder, *knn, "--quick", "--cpu"], "no --data-root given"),
        ([encoder, *knn, "--quick", "--cpu", "--data-root", tmp_path / "nowhere"], "nowhere is not a folder"),
        ([encoder, *knn, "--quick", "--cpu", "--data-root", data / "coco"], "needs data in ImageNet's layout"),
        ([encoder, "--task", "upernet", *good[:1], data / "classification", "--quick"], "it looks like ImageNet's"),
        ([tmp_path / "absent.pth", *knn, *good], "absent.pth"),
        ([encoder, *knn, "--data-root", data], "no protocol of --task knn is published for ViT-128x4/8"),
        ([other, *knn, *good], "no protocol for ViT-64x2/8"),
        ([other, *knn, *good, "--config", "classification/demo/knn_vit-demo_demo.py"], "does not fit"),
        ([encoder, *knn, *good, "--config", "classification/demo/linear_vit-demo_demo.py"], "not of --task knn"),
        ([encoder, *knn, *good, "--gpus", "8"], "--gpus and --cpu contradict"),
        ([encoder, *knn, *good[:3], "--gpus", "8"], "--gpus 8: this machine has none"),
        ([encoder, *knn, *good, "--arch", BASE], "--arch ViT-B/16 is for 'random' only"),
        ([encoder, "--task", "linear", *good, "--processes", "5"], "does not divide among 5 processes"),
        ([encoder, *knn, *good, "--cfg-options", "seed"], "is not key=value"),
        (
            ["random", "--task", "maskrcnn", *good, "--cfg-options", "optim_wrapper.type=AmpOptimWrapper"],
            "does not run on a CPU",
        ),
    ]
    for arguments, message in cases:
        code, out, err = call(monkeypatch, capsys, "transfer", *arguments)
        assert code == 2 and message in " ".join(err.split()), (arguments, err)
        assert "Traceback" not in err and err.count("error:") == 1 and "[1/1]" not in out
    assert not (tmp_path / "work_dirs").exists()
    for arguments, message in [
        ([tmp_path / "absent"], "absent does not exist"),
        ([encoder], "no config beside"),
    ]:
        code, _, err = call(monkeypatch, capsys, "evaluate", *arguments)
        assert code == 2 and message in err and "fix:" in err


def test_layouts_are_told_apart_and_demonstration_data_are_known(tmp_path, data):
    found = {name: recognise(data / name) for name in ("classification", "coco", "ade20k")}
    assert found == {"classification": "imagenet", "coco": "coco", "ade20k": "ade20k"}
    assert is_demo_dataset(data) and is_demo_dataset(data / "coco") and not is_demo_dataset(tmp_path)


def test_folders_of_equal_names_and_other_weights_have_work_directories_of_their_own(tmp_path):
    """A Hugging Face folder goes by its weights, as a file does by its content."""
    slugs = []
    for seed, place in enumerate(("here", "there")):
        torch.manual_seed(seed)
        model = ViTEncoder(arch=dict(embed_dim=32, depth=1, num_heads=2), img_size=32, patch_size=8)
        source = tmp_path / place / "encoder.pth"
        source.parent.mkdir()
        export_encoder(model, source, {})
        convert(source, tmp_path / place / "model", "hf", num_heads=2)
        slugs.append(look_at(str(tmp_path / place / "model")).slug)
    assert slugs[0] != slugs[1] and all(slug.startswith("model-") for slug in slugs)
