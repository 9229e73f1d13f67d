"""What a record holds, and the checks that keep a wrong one from being written or shown."""

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath, PureWindowsPath

from emae_mm.errors import UserError

SCHEMA_VERSION = 1

TRANSFER_TASKS = (
    "imagenet-knn",
    "imagenet-linear",
    "imagenet-finetune",
    "coco-maskrcnn-fpn",
    "coco-vitdet",
    "coco-vitdet-cascade",
    "ade20k-upernet",
    "ade20k-upernet-cae",
)
TASKS = (*TRANSFER_TASKS, "pretrain", "reconstruction")
"""The tasks a measured record may name; the leaderboard has one table for each."""

DEMO_DATA = "emae-demo"
"""The embedded data set: its results are labelled as a demonstration wherever they are shown."""

QUICK_PREFIX = "quick run of "
"""How the protocol of a run begins that only tries the way: such results are shown, and ranked nowhere."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class RecordError(UserError):
    """A record is unreadable, incomplete or holds an impossible value."""


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise RecordError(f"record: {key} = {value!r} is not allowed", f"{key} must be {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_inside(path: object) -> bool:
    return (
        _is_text(path)
        and not PurePosixPath(path).is_absolute()
        and not PureWindowsPath(path).drive
        and "\\" not in path
        and ".." not in PurePosixPath(path).parts
    )


@dataclass(frozen=True)
class Metric:
    """One measured number.

    Args:
        value: finite; within [0, 100] where the unit is ``%``. COCO's -1 ("no such objects") is no measurement and
            has no place in a record.
        unit: ``%`` for accuracies, AP and mIoU; otherwise e.g. ``s``, ``dB`` or an empty string.
        higher_is_better: direction of the ranking.
    """

    value: float
    unit: str = "%"
    higher_is_better: bool = True

    def check(self, key: str) -> None:
        """Raise RecordError naming ``key`` unless the value, unit and direction are of the right type and range."""
        _require(_is_number(self.value), f"{key}.value", self.value, "a finite number")
        _require(isinstance(self.unit, str), f"{key}.unit", self.unit, "a string")
        _require(isinstance(self.higher_is_better, bool), f"{key}.higher_is_better", self.higher_is_better, "a boolean")
        in_range = self.unit != "%" or 0 <= self.value <= 100
        _require(in_range, f"{key}.value", self.value, "between 0 and 100, as its unit is %")


@dataclass(frozen=True)
class FileIdentity:
    """A file by name and content.

    Args:
        path: relative to the folder that holds the record, with forward slashes; never absolute and never upwards,
            so that a record says the same on every machine.
        sha256: 64 hexadecimal digits, lower case.
    """

    path: str
    sha256: str

    def check(self, key: str) -> None:
        """Raise RecordError naming ``key`` unless path and digest are well formed."""
        _require(_is_inside(self.path), f"{key}.path", self.path, "a path relative to the record's folder")
        is_digest = isinstance(self.sha256, str) and bool(_SHA256.fullmatch(self.sha256))
        _require(is_digest, f"{key}.sha256", self.sha256, "64 hexadecimal digits in lower case")


@dataclass(frozen=True)
class Hardware:
    """Where a run ran: CPU and GPU model names (``gpu`` is empty without one) and the number of processes."""

    cpu: str
    gpu: str = ""
    processes: int = 1

    def check(self, key: str) -> None:
        """Raise RecordError naming ``key`` unless all parts are of the right type."""
        _require(isinstance(self.cpu, str), f"{key}.cpu", self.cpu, "a string")
        _require(isinstance(self.gpu, str), f"{key}.gpu", self.gpu, "a string")
        valid = isinstance(self.processes, int) and not isinstance(self.processes, bool) and self.processes >= 1
        _require(valid, f"{key}.processes", self.processes, "a positive integer")


@dataclass(frozen=True)
class CodeVersion:
    """The package version and, in a checkout, the git commit (with ``+changes`` where the tree was not clean)."""

    version: str
    commit: str | None = None

    def check(self, key: str) -> None:
        """Raise RecordError naming ``key`` unless both parts are text."""
        _require(_is_text(self.version), f"{key}.version", self.version, "a non-empty string")
        _require(self.commit is None or _is_text(self.commit), f"{key}.commit", self.commit, "a string or null")


def utc_now() -> str:
    """The present time, ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Record:
    """What one finished run leaves for the leaderboard.

    Args:
        task: one of ``TASKS``.
        protocol: the exact recipe, e.g. ``mae-linear-probe-90e``; only equal (protocol, data) are ranked together.
        data: the data set of the task, e.g. ``ImageNet-1K`` or ``emae-demo``.
        method: e.g. ``EMAE``, ``MAE``, ``random init``.
        arch: e.g. ``ViT-B/16``.
        pretrain_data: the data set the encoder was pre-trained on; ``none`` for a random start.
        pretrain_epochs: epochs of pre-training; 0 for a random start, None where it is not known.
        metrics: name -> Metric. Names the leaderboard knows: ``top1``, ``top5``, ``box_AP``, ``mask_AP``, ``mIoU``,
            ``SSIM``, ``LPIPS``, ``FID``; others are shown under their own name.
        primary: the metric that ranks; a key of ``metrics``.
        seed: the run's random seed, >= 0.
        config: the complete config the run used.
        code: version of this package.
        libraries: distribution name -> version.
        hardware: where it ran.
        wall_clock_s: duration of the run in seconds, over all its resumptions.
        encoder: the encoder checkpoint that was transferred (for ``pretrain``: produced); None for a random start.
        peak_memory_mb: highest memory use of one process (of the GPU where there is one) in MiB, if known.
        created: ISO 8601 time in UTC.
        num_samples: number of evaluated images, if known; gives the sampling error of an accuracy.
        notes: free text shown beside the row.
        pretrain_protocol: the recipe of the encoder's pre-training where it is not the one its method and epochs stand
            for, e.g. with options overridden; such results are never averaged with others of that name.
        pictures: path relative to the folder that holds the record, as in FileIdentity -> title.
        schema_version: version of this layout.

    Raises:
        RecordError: a field has a wrong type or an impossible value; the message names it.
    """

    task: str
    protocol: str
    data: str
    method: str
    arch: str
    pretrain_data: str
    pretrain_epochs: float | None
    metrics: dict[str, Metric]
    primary: str
    seed: int
    config: FileIdentity
    code: CodeVersion
    libraries: dict[str, str]
    hardware: Hardware
    wall_clock_s: float
    encoder: FileIdentity | None = None
    peak_memory_mb: float | None = None
    created: str = field(default_factory=utc_now)
    num_samples: int | None = None
    notes: str = ""
    pretrain_protocol: str = ""
    pictures: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self):
        _check_identity(self)
        _check_metrics(self)
        _check_provenance(self)


def _check_identity(record: Record) -> None:
    _require(record.schema_version == SCHEMA_VERSION, "schema_version", record.schema_version, f"{SCHEMA_VERSION}")
    _require(record.task in TASKS, "task", record.task, f"one of {', '.join(TASKS)}")
    for key in ("protocol", "data", "method", "arch", "pretrain_data"):
        _require(_is_text(getattr(record, key)), key, getattr(record, key), "a non-empty string")
    epochs = record.pretrain_epochs
    _require(epochs is None or (_is_number(epochs) and epochs >= 0), "pretrain_epochs", epochs, "a number >= 0 or null")


def _check_metrics(record: Record) -> None:
    _require(isinstance(record.metrics, dict) and bool(record.metrics), "metrics", record.metrics, "a non-empty table")
    for name, metric in record.metrics.items():
        _require(_is_text(name), "metrics", name, "named by non-empty strings")
        _require(isinstance(metric, Metric), f"metrics.{name}", metric, "a Metric")
        metric.check(f"metrics.{name}")
    _require(record.primary in record.metrics, "primary", record.primary, f"one of {sorted(record.metrics)}")


def _check_provenance(record: Record) -> None:
    whole = isinstance(record.seed, int) and not isinstance(record.seed, bool)
    _require(whole and record.seed >= 0, "seed", record.seed, "an integer >= 0")
    for key, kind in (("config", FileIdentity), ("code", CodeVersion), ("hardware", Hardware)):
        part = getattr(record, key)
        _require(isinstance(part, kind), key, part, f"a {kind.__name__}")
        part.check(key)
    _require(record.encoder is None or isinstance(record.encoder, FileIdentity), "encoder", record.encoder, "a file")
    if record.encoder is not None:
        record.encoder.check("encoder")
    versions = isinstance(record.libraries, dict) and all(
        _is_text(name) and _is_text(version) for name, version in record.libraries.items()
    )
    _require(versions, "libraries", record.libraries, "a table of name -> version")
    seconds = record.wall_clock_s
    _require(_is_number(seconds) and seconds >= 0, "wall_clock_s", seconds, "seconds >= 0")
    memory = record.peak_memory_mb
    _require(memory is None or (_is_number(memory) and memory >= 0), "peak_memory_mb", memory, "MiB >= 0 or null")
    samples = record.num_samples
    counted = isinstance(samples, int) and not isinstance(samples, bool) and samples > 0
    _require(samples is None or counted, "num_samples", samples, "a positive integer or null")
    for key in ("notes", "pretrain_protocol"):
        _require(isinstance(getattr(record, key), str), key, getattr(record, key), "a string")
    drawn = isinstance(record.pictures, dict) and all(
        _is_inside(path) and path.endswith(".png") and _is_text(title) for path, title in record.pictures.items()
    )
    _require(drawn, "pictures", record.pictures, "a table of PNG paths relative to the record's folder -> title")
    _require(_is_utc(record.created), "created", record.created, "a UTC time such as 2026-01-31T12:00:00+00:00")


def _is_utc(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return moment.utcoffset() == timedelta(0)
