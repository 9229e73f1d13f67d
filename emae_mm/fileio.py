"""Files that are either whole or absent: written beside the target, flushed to disk, then renamed over it."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from emae_mm.errors import UserError


@contextmanager
def replaced_atomically(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``path`` to write to, and put it in place in one step on leaving.

    A crash, a kill or a full disk leaves the previous content of ``path`` untouched and no temporary file behind
    (after SIGKILL a stale ``.*.tmp`` may stay; the next write of the same path replaces it).

    Raises:
        UserError: the disk is full or over quota, naming the path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"no space left to write {path} ({error.strerror})",
                "free disk space or choose another --work-dir, then run the same command with --resume; "
                "everything written before is intact",
            ) from error
        raise


def write_atomically(path: str | Path, write: Callable[[BinaryIO], None]) -> None:
    """Let ``write`` fill the new content of ``path``; see :func:`replaced_atomically`."""
    with replaced_atomically(path) as temporary, open(temporary, "wb") as file:
        write(file)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def file_sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
