"""Reading one member of a shard."""

import functools
import os
from typing import NamedTuple

_OPEN = 64  # shards a process keeps open: those of the present window and of the one before
_RUN = 1 << 20  # bytes asked for at once; kernels cut longer requests


class TarMember(NamedTuple):
    """A file within a tar file.

    Attributes:
        shard: path of the tar file.
        offset: where the file begins in it, in bytes.
        size: its length in bytes.
        read_ahead: ask the system to fetch the whole shard, in order, when its first member is read.
    """

    shard: str
    offset: int
    size: int
    read_ahead: bool = False

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            OSError: the shard is missing, cannot be read, or ends too early.
        """
        file = _open(self.shard, self.read_ahead)  # kept until the end: another thread may push it out of the cache
        parts, got = [], 0
        while got < self.size:  # one call gives 2 GiB at most, and may give less than it was asked for
            part = os.pread(file.descriptor, self.size - got, self.offset + got)
            if not part:
                raise OSError(None, f"the shard ends after {got} of its {self.size} bytes")
            parts.append(part)
            got += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _OpenFile:
    """A descriptor that is closed with its last user; positions are never shared, so forked workers may use it too."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@functools.lru_cache(maxsize=_OPEN)
def _open(path: str, read_ahead: bool) -> _OpenFile:
    file = _OpenFile(path)
    if read_ahead and hasattr(os, "posix_fadvise"):
        for start in range(0, os.fstat(file.descriptor).st_size, _RUN):
            os.posix_fadvise(file.descriptor, start, _RUN, os.POSIX_FADV_WILLNEED)
    return file
