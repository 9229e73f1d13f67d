"""Records on disk: one small JSON file beside each finished run."""

import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from emae_mm.errors import UserError
from emae_mm.fileio import file_sha256, write_text
from emae_mm.leaderboard.schema import (
    SCHEMA_VERSION,
    CodeVersion,
    FileIdentity,
    Hardware,
    Metric,
    Record,
    RecordError,
)

RECORD_NAME = "record.json"


@dataclass(frozen=True)
class FoundRecord:
    """A record and the file it was read from."""

    record: Record
    path: Path


def identify(path: str | Path, folder: str | Path) -> FileIdentity:
    """Name (relative to ``folder``, or the bare file name where it lies elsewhere) and SHA-256 of a file.

    Raises:
        UserError: the file cannot be read.
    """
    path, folder = Path(path).resolve(), Path(folder).resolve()
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})", "check the path and its permissions") from error
    return FileIdentity(path=name, sha256=digest)


def write_record(record: Record, path: str | Path) -> None:
    """Write ``record`` as JSON, atomically. ``path`` is ``record.json`` in the run's work directory."""
    write_text(path, json.dumps(asdict(record), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_record(path: str | Path) -> Record:
    """Read and check one record.

    Raises:
        RecordError: the file is unreadable, no JSON, of another schema version, or a key is missing, unknown or holds
            an impossible value; the message names file and key.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(
            f"{path} cannot be read as a record ({error})", "delete it and run that stage again, or restore the file"
        ) from error
    try:
        return _parse(content)
    except RecordError as error:
        raise RecordError(f"{path}: {error.problem}", error.fix) from error


def find_records(*work_dirs: str | Path) -> list[FoundRecord]:
    """All records in the work directories and below, each once, ordered by path.

    Raises:
        UserError: a directory does not exist.
        RecordError: a ``record.json`` is unreadable or malformed.
    """
    paths = set()
    for folder in map(Path, work_dirs):
        if not folder.is_dir():
            raise UserError(f"work directory {folder} does not exist", "give the --work-dir of finished runs")
        paths.update(found.resolve() for found in folder.rglob(RECORD_NAME))
    return [FoundRecord(read_record(path), path) for path in sorted(paths)]


def _parse(content: object) -> Record:
    if not isinstance(content, dict):
        raise RecordError(f"a record must be a JSON object, not {type(content).__name__}", "run the stage again")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"schema_version is {version!r}, this version of emae_mm reads {SCHEMA_VERSION}",
            "use the version of emae_mm that wrote the record, or run the stage again",
        )
    values = dict(content)
    metrics = values.get("metrics")
    if isinstance(metrics, dict):
        values["metrics"] = {name: _build(Metric, part, f"metrics.{name}") for name, part in metrics.items()}
    kinds = {"config": FileIdentity, "code": CodeVersion, "hardware": Hardware, "encoder": FileIdentity}
    for key, kind in kinds.items():
        if values.get(key) is not None:
            values[key] = _build(kind, values[key], key)
    return _build(Record, values)


def _build(kind: Callable, values: object, key: str = ""):
    """``kind(**values)`` with an error that names the first missing or unknown key."""
    if not isinstance(values, dict):
        raise RecordError(f"record: {key} = {values!r} is not a table", f"{key} must be a JSON object")
    prefix = f"{key}." if key else ""
    known = {item.name: item for item in fields(kind)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise RecordError(f"record: unknown key {prefix}{unknown[0]}", f"known keys: {', '.join(known)}")
    for name, item in known.items():
        optional = item.default is not MISSING or item.default_factory is not MISSING
        if name not in values and not optional:
            raise RecordError(f"record: key {prefix}{name} is missing", "run the stage again to have it written anew")
    return kind(**values)
