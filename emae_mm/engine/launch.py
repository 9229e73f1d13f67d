"""From a config file to a finished run."""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from emae_mm.engine.distributed import FSDP, adapt_to_cpu, choose_strategy, init_distributed, share_batch
from emae_mm.engine.follow_data import chosen_counts, data_name, follow_annotations, read_classes, set_everywhere
from emae_mm.engine.precision import check_precision, use_amp
from emae_mm.engine.schedule import check_schedule, fuse_optimizer, scale_learning_rate
from emae_mm.engine.watch import check_tracker, watch
from emae_mm.engine.work_dir import claim, is_finished, latest_checkpoint
from emae_mm.errors import ConfigError
from emae_mm.paths import find_config
from emae_mm.quiet import silence_known_noise

# Overrides with these beginnings change no recipe: how data are loaded, what is logged, kept and named.
HARMLESS = (
    "record.", "work_dir", "env_cfg", "log_", "vis", "default_hooks", "launcher", "randomness", "model.log_",
    "tracker", "knn_probe", "reconstruction_panel", "pictures",
    "strategy", "activation_checkpointing", "compile", "model.parts_per_pass", "model_wrapper_cfg",
    "model.backbone.init_values",  # whether there is LayerScale is the checkpoint's to say (CAE)
    *(f"{split}_dataloader.{key}" for split in ("train", "val", "test") for key in ("num_w", "persistent", "pin_")),
)  # fmt: skip

__all__ = ["is_finished", "prepare_config", "run"]


def prepare_config(
    config: str | Path,
    *,
    work_dir: str | Path | None = None,
    cfg_options: dict[str, Any] | None = None,
    data_root: str | Path | None = None,
    pretrained: str | None = None,
    resume: bool | str = False,
    load_from: str | None = None,
    amp: bool = False,
    launcher: str = "none",
    seed: int | None = None,
    auto_scale_lr: bool = False,
    fsdp: bool = False,
    activation_checkpointing: bool = False,
    compile: bool = False,
    tracker: str | None = None,
    allow_missing: Sequence[str] = (),
    resample_patch_embed: bool = False,
) -> Config:
    """Read a config and apply what the command line says.

    Args:
        config: file, or name below ``configs/``.
        work_dir: where the run writes; ``work_dirs/<config name>`` by default.
        cfg_options: dotted keys and values that override the config.
        data_root: replaces every data set's root; number of classes and annotation files follow.
        pretrained: the encoder a transfer starts from: a file, ``timm:NAME`` or ``"random"``.
        resume: False, True or ``"auto"`` (go on from the latest checkpoint, if any), or a checkpoint file.
        load_from: a complete checkpoint of this config, to test.
        amp: bfloat16 autocast, or float16 with a loss scaler on GPUs without bfloat16.
        launcher: ``"none"``, ``"pytorch"``, ``"slurm"`` or ``"mpi"``.
        seed: of everything random.
        auto_scale_lr: scale the learning rate with the batch, by the config's ``auto_scale_lr.base_batch_size``.
        fsdp: share the model among the processes (fully sharded data parallelism) instead of copying it to each.
        activation_checkpointing: compute the activations of transformer blocks anew in the backward pass.
        compile: compile the deterministic part of the model with ``torch.compile``.
        tracker: log to ``"wandb"`` or ``"mlflow"``, too.
        allow_missing: encoder tensors, or patterns, that ``pretrained`` and the encoder need not have in common.
        resample_patch_embed: bring ``pretrained``'s patch embedding to the encoder's patch size.

    Raises:
        ConfigError: no such config, or contradictory values.
    """
    path = find_config(config)
    silence_known_noise()  # reading a config imports what it asks for
    cfg, overrides = Config.fromfile(path), cfg_options or {}
    cfg.work_dir = str(work_dir or cfg.get("work_dir") or Path("work_dirs") / path.stem)
    cfg.launcher = launcher
    cfg.merge_from_dict(overrides)
    if seed is not None:
        cfg.setdefault("randomness", {})["seed"] = seed
    _follow_data(cfg, data_root, overrides)
    start = _start_options(cfg, pretrained, allow_missing, resample_patch_embed)
    _keep_record_true(cfg, {**overrides, **start})
    if amp:
        use_amp(cfg, overrides)
    if auto_scale_lr:
        cfg.setdefault("auto_scale_lr", {})["enable"] = True
    if fsdp:
        cfg.setdefault("strategy", dict(type=FSDP))
    if activation_checkpointing:
        cfg.activation_checkpointing = True
    if compile:
        cfg.compile = cfg.get("compile") or True
    if tracker:
        cfg.tracker = tracker
    cfg.resume, cfg.load_from = bool(resume), load_from
    if resume and resume is not True and resume != "auto":
        cfg.load_from = str(resume)
    return cfg


def _follow_data(cfg: Config, data_root: str | Path | None, overrides: dict[str, Any]) -> None:
    """Data sets, evaluators and the record's data follow the data root."""
    if data_root is not None:
        if not Path(data_root).is_dir():
            raise ConfigError(f"data root {data_root} is not a folder", "give the folder that holds the data set")
        set_everywhere(cfg._cfg_dict, "data_root", str(data_root))
    follow_annotations(cfg)
    if counts := chosen_counts(overrides):
        cfg.chosen_classes = counts
    if cfg.get("record", {}).get("data") == "":
        cfg.record.data = data_name(cfg)


def run(cfg: Config, progress: Callable[..., None] | None = None, quiet: bool = False) -> dict[str, float]:
    """Check, then train (and validate), or only test when the config has nothing to train.

    Args:
        cfg: from :func:`prepare_config`.
        progress: called with (step, total, loss or None, what=...) at every step.
        quiet: log to the work directory's files only, warnings excepted.

    Returns:
        the last metrics, by OpenMMLab's names.

    Raises:
        UserError: before anything is computed where that can be known: data, checkpoint, work directory, batch.
    """
    from emae_mm.data.checks import check_config_data
    from emae_mm.data.checks.layouts import check_layouts

    silence_known_noise()
    _mend_mmseg_name()
    cfg = copy.deepcopy(cfg)
    _require_start(cfg)
    check_schedule(cfg)
    check_precision(cfg)
    check_tracker(cfg)
    share_batch(copy.deepcopy(cfg))  # done when the runner is built; said now, if it cannot be
    init_distributed(cfg.launcher)
    check_layouts(cfg)
    read_classes(cfg)
    reports = check_config_data(cfg)
    claim(cfg)
    runner = _build_runner(cfg, progress, quiet)
    for report in reports:
        runner.logger.log(logging.WARNING if report.notes else logging.INFO, str(report))
    record = next(hook for hook in runner.hooks if type(hook).__name__ == "RecordHook")
    if cfg.get("train_cfg"):
        runner.train()
        if not record.metrics and cfg.get("val_cfg"):
            runner.val()  # resumed after the last step: the interrupted validation is made up for
    else:
        runner.test()
    return dict(record.metrics)


def test(cfg: Config, progress: Callable[..., None] | None = None, quiet: bool = False) -> dict[str, float]:
    """Evaluate on the config's test data, training nothing: a config's checkpoint (``load_from``) or a k-NN config.

    Raises:
        UserError: as :func:`run`; also if the config has no test data.
    """
    if not cfg.get("test_dataloader"):
        raise ConfigError(
            f"{Path(cfg.filename).name} has no test data (test_dataloader)",
            "test transfer configs; pre-training is judged by transferring its encoder.pth",
        )
    cfg = copy.deepcopy(cfg)
    for key in ("train_cfg", "train_dataloader", "optim_wrapper", "param_scheduler"):
        cfg.pop(key, None)
    for key in ("val_cfg", "val_dataloader", "val_evaluator"):
        cfg.pop(key, None)
    return run(cfg, progress, quiet)


def _build_runner(cfg: Config, progress: Callable[..., None] | None, quiet: bool):
    from emae_mm.engine.hooks import ProgressHook
    from emae_mm.engine.seeding import seed_dataloaders
    from emae_mm.registry import RUNNERS

    share_batch(cfg)
    scaled = scale_learning_rate(cfg)
    fuse_optimizer(cfg)
    runner_type = choose_strategy(cfg)
    watch(cfg)
    adapt_to_cpu(cfg)
    seed_dataloaders(cfg)
    if cfg.resume and cfg.load_from is None:
        latest = latest_checkpoint(cfg.work_dir)
        cfg.resume, cfg.load_from = latest is not None, latest and str(latest)
    cfg.log_to_console = not quiet
    runner = RUNNERS.get(runner_type).from_cfg(cfg)
    if scaled:
        runner.logger.info(scaled)
    if progress is not None:
        runner.register_hook(ProgressHook(progress))
    return runner


def _mend_mmseg_name() -> None:
    # mmengine looks for a distribution called like the module's old one; see `_base_ = 'mmseg::...'`
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE["mmseg"] = "mmseg"


def _start_options(
    cfg: Config, pretrained: str | None, allow_missing: Sequence[str], resample_patch_embed: bool
) -> dict[str, Any]:
    """Pass on what the model starts from, and return how it may differ: overrides that the record's protocol tells."""
    name = Path(cfg.filename).name
    if pretrained:
        if "pretrained" not in cfg:
            raise ConfigError(f"{name} takes no pretrained encoder", "give --pretrained to transfer configs only")
        cfg.pretrained = str(pretrained)
    if cfg.get("pretrained"):
        cfg.model.backbone.pretrained = cfg.pretrained
    if cfg.get("tokenizer"):
        cfg.model.tokenizer = cfg.tokenizer
    asked = {"allow_missing": list(allow_missing), "resample_patch_embed": resample_patch_embed}
    asked = {key: value for key, value in asked.items() if value}
    if asked and "pretrained" not in cfg:
        raise ConfigError(
            f"{name} takes no pretrained encoder",
            "give --allow-missing and --resample-patch-embed to transfer configs only",
        )
    if asked:
        cfg.model.backbone.pretrained_options = {**cfg.model.backbone.get("pretrained_options", {}), **asked}
    return asked


def _keep_record_true(cfg: Config, overrides: dict[str, Any]) -> None:
    """A recipe the command line changed no longer goes by its published name; pre-training says its real epochs."""
    record = cfg.get("record")
    if not record:
        return
    harmless = HARMLESS
    if record.get("task") == "pretrain" and cfg.train_cfg.get("max_epochs"):
        record.epochs = cfg.train_cfg.max_epochs
        harmless += ("train_cfg.max_epochs",)
    # which file holds the tokenizer is no change of recipe, an untrained one is
    harmless += () if overrides.get("tokenizer") == "random" else ("tokenizer",)
    # how many images a process takes at once, where the batch of a step is kept
    harmless += ("train_dataloader.batch_size",) if cfg.get("global_batch_size") else ()
    changed = [f"{key}={value}" for key, value in sorted(overrides.items()) if not key.startswith(harmless)]
    if changed:
        record.protocol = f"{record.get('protocol') or Path(cfg.filename).stem}, with {', '.join(changed)}"


def _require_start(cfg: Config) -> None:
    if cfg.get("pretrained") == "" and cfg.get("load_from") is None:
        raise ConfigError(
            "this config transfers an encoder, but 'pretrained' is not set",
            "give --pretrained with an encoder.pth, any timm or MAE checkpoint or timm:NAME, "
            "or 'random' to start from random weights on purpose",
        )
    if "tokenizer" in cfg:
        from emae_mm.checkpoints.tokenizer import require_tokenizer

        require_tokenizer(cfg.tokenizer)
