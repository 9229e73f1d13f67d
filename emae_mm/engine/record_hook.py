"""Writes the record of a finished run."""

import math
from pathlib import Path

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from emae_mm.checkpoints import read_checkpoint, weights_file
from emae_mm.leaderboard.metrics import info
from emae_mm.leaderboard.provenance import code_version, cpu_name, library_versions
from emae_mm.leaderboard.records import RECORD_NAME, identify, read_record, write_record
from emae_mm.leaderboard.schema import Hardware, Metric, Record
from emae_mm.models.vit import ARCHITECTURES
from emae_mm.paths import ENCODER_FILE
from emae_mm.registry import HOOKS

CONFIG_FILE = "config.json"
LOG_WINDOW = 50
"""Steps over which what a pre-training run logged last is averaged."""

# OpenMMLab's metric names, the leaderboard's, and the factor to its unit (per cent).
METRICS = {
    "accuracy/top1": ("top1", 1.0),
    "accuracy/top5": ("top5", 1.0),
    "knn/top1": ("top1", 1.0),
    "knn/top5": ("top5", 1.0),
    "coco/bbox_mAP": ("box_AP", 100.0),
    "coco/bbox_mAP_50": ("box_AP50", 100.0),
    "coco/bbox_mAP_75": ("box_AP75", 100.0),
    "coco/segm_mAP": ("mask_AP", 100.0),
    "coco/segm_mAP_50": ("mask_AP50", 100.0),
    "coco/segm_mAP_75": ("mask_AP75", 100.0),
    "mIoU": ("mIoU", 1.0),
}
LOGGED = {"loss": False, "prediction_variance": True}
"""What a pre-training record says of the run's last steps, as far as it was logged, and whether higher is better."""
LETTERS = {"tiny": "ViT-Ti", "small": "ViT-S", "base": "ViT-B", "large": "ViT-L", "huge": "ViT-H"}
RANDOM_START = dict(method="random init", data="none", epochs=0)


def arch_name(encoder) -> str:
    """``ViT-B/16`` for the standard architectures, else ``ViT-128x4/8`` (width x depth / patch size)."""
    spec = dict(embed_dim=encoder.embed_dim, depth=encoder.depth, num_heads=encoder.num_heads)
    named = [LETTERS[name] for name, standard in ARCHITECTURES.items() if standard == spec]
    return f"{named[0] if named else f'ViT-{encoder.embed_dim}x{encoder.depth}'}/{encoder.patch_size}"


def reset_peak_memory() -> None:
    """Forget this process's memory peak, so that :func:`peak_memory_mb` speaks of one run."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        try:
            clear.write_text("5")
        except OSError:  # some sandboxes forbid it: the peak is then that of the whole process
            return


def peak_memory_mb() -> float | None:
    """Peak memory in MiB of the GPU, or of the process where there is none; None where the system does not tell."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    peaks = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return peaks[0] if peaks else None


@HOOKS.register_module()
class RecordHook(Hook):
    """Collects the last metrics of a run and leaves ``record.json`` when the run has ended.

    The static part comes from the config's ``record``; which encoder was transferred from the ``meta`` of the
    checkpoint. ``record.method`` and so on in the config override what the checkpoint says.
    """

    priority = "LOWEST"

    def __init__(self):
        self.metrics: dict[str, float] = {}
        self.num_samples: int | None = None

    def before_run(self, runner) -> None:
        reset_peak_memory()

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.metrics, self.num_samples = dict(metrics or {}), len(runner.val_dataloader.dataset)

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        self.metrics, self.num_samples = dict(metrics or {}), len(runner.test_dataloader.dataset)

    def after_train(self, runner) -> None:
        if runner.cfg.record.task == "pretrain":
            # from the message hub, which checkpoints hold, so that a run resumed after its last step has it too
            scalars = runner.message_hub.log_scalars
            self.metrics = {
                name: scalars[f"train/{name}"].mean(LOG_WINDOW) for name in LOGGED if f"train/{name}" in scalars
            }

    def after_run(self, runner) -> None:
        metrics = self._metrics()
        if metrics and is_main_process():
            write_record(self._record(runner, metrics), Path(runner.work_dir) / RECORD_NAME)

    def _metrics(self) -> dict[str, Metric]:
        found = {}
        for name, value in self.metrics.items():
            known, factor = METRICS.get(name, ("", 1.0))
            if name in LOGGED:
                found[name] = Metric(float(value), info(name).unit, LOGGED[name])
            elif known and math.isfinite(value) and value >= 0:  # COCO gives -1 where a size does not occur
                found[known] = Metric(float(value) * factor, info(known).unit or "%", info(known).higher_is_better)
        return found

    def _record(self, runner, metrics: dict[str, Metric]) -> Record:
        cfg, work_dir = runner.cfg, Path(runner.work_dir)
        static = cfg.record
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        encoder_file, start = self._start(cfg, work_dir)
        start = start | {key: static[key] for key in ("method", "arch", "epochs") if key in static}
        pretrain_data = static.data if static.task == "pretrain" else start.get("data", "unknown")
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        return Record(
            task=static.task,
            protocol=static.get("protocol", Path(cfg.filename).stem if cfg.filename else "custom"),
            data=static.data,
            method=start.get("method", "unknown"),
            arch=start.get("arch") or arch_name(model.backbone),
            pretrain_data=pretrain_data,
            pretrain_epochs=start.get("epochs"),
            metrics=metrics,
            primary=static.get("metric") or next(iter(metrics)),
            seed=int(runner.seed),
            config=identify(work_dir / CONFIG_FILE, work_dir),
            code=code_version(),
            libraries=library_versions(),
            hardware=Hardware(cpu=cpu_name(), gpu=gpu, processes=get_world_size()),
            wall_clock_s=runner.spent_s(),
            encoder=encoder_file and identify(encoder_file, work_dir),
            peak_memory_mb=peak_memory_mb(),
            num_samples=self.num_samples,
            notes=static.get("notes", ""),
            pretrain_protocol="" if static.task == "pretrain" else start.get("protocol", ""),
        )

    @staticmethod
    def _start(cfg, work_dir: Path) -> tuple[Path | None, dict]:
        """The encoder's file and what is known of it: made by this run, transferred by it, or a random start."""
        if cfg.record.task == "pretrain":
            return work_dir / ENCODER_FILE, {}
        source = cfg.get("pretrained", "")
        if source == "random":
            return None, dict(RANDOM_START)
        if not source:  # a finished transfer is tested again: what was transferred stands in the record beside it
            beside = Path(cfg.load_from).with_name(RECORD_NAME)
            if not beside.is_file():
                return Path(cfg.load_from), {"method": Path(cfg.load_from).name}
            old = read_record(beside)
            start = dict(method=old.method, arch=old.arch, data=old.pretrain_data, epochs=old.pretrain_epochs)
            return None, start | dict(protocol=old.pretrain_protocol)
        meta = read_checkpoint(source).meta
        named = meta if "method" in meta else {"method": Path(source).name.removeprefix("timm:")}
        return weights_file(source), dict(named)
