"""Which files are the shards: folders, brace patterns, wildcards."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from webdataset.shardlists import expand_urls

from emae_mm.data.offenders import refuse
from emae_mm.errors import DataError

_FIX = "write for example 'train' (a folder of *.tar) or 'train-{000000..000999}.tar'"


def list_shards(shards: str | Sequence[str], root: str | Path = "") -> list[Path]:
    """The shards that a pattern names, in the pattern's order.

    Args:
        shards: webdataset's notation, as ``"train-{000000..000999}.tar"`` or several patterns joined by ``::``; also
            wildcards, a folder (all ``*.tar`` in it at any depth, sorted) or a list of all these. Empty: ``root``.
        root: folder the names are relative to.

    Raises:
        DataError: nothing is found, named shards are missing or named twice, or the pattern is an address or malformed.
    """
    found: list[Path] = []
    for pattern in [shards] if isinstance(shards, str) else shards:
        for name in _expand(pattern):
            found += _files(Path(os.path.expanduser(root)) / os.path.expanduser(name))
    refuse("shards do not exist", [path for path in found if not path.is_file()], "check data_root and the pattern")
    refuse("shards are named twice", [path for path, times in Counter(found).items() if times > 1], "name each once")
    if not found:
        raise DataError(f"{Path(root) / str(shards)} holds no shard (*.tar)", _FIX)
    return found


def _expand(pattern: str) -> list[str]:
    if "://" in pattern or pattern.startswith("pipe:"):
        raise DataError(
            f"shards {pattern!r} are read as a stream; samples are read by their place here, which needs files",
            "mount the storage or copy the shards to a disk, and give their path",
        )
    try:
        return expand_urls(pattern)
    except (AssertionError, ValueError) as error:  # an unknown ${VARIABLE}, unbalanced braces
        raise DataError(f"the shard pattern {pattern!r} cannot be expanded ({error})", _FIX) from error


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*.tar") if not file.name.startswith("."))
    if glob.has_magic(str(path)):
        return [Path(name) for name in sorted(glob.glob(str(path)))]
    return [path]
