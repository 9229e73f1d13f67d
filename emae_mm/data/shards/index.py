"""Where every image of the shards is: read once from the tar headers, kept in one file beside the shards."""

import functools
import hashlib
import logging
import os
import platform
import re
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from webdataset.tariterators import group_by_keys

from emae_mm.data.files import is_image_name
from emae_mm.data.offenders import refuse
from emae_mm.errors import DataError
from emae_mm.fileio import write_atomically

_FORMAT = 1
_READERS = 16  # header reads wait for the disk
_BLOCK = 512
_META = re.compile(r"__[^/]*__($|/)")  # webdataset keeps notes about a shard under such names


class BrokenShard(ValueError):
    """The file is not one whole tar archive of samples; the message says what is wrong, the caller adds the name."""


@dataclass
class ShardIndex:
    """The images of a list of shards, in the shards' order; columns, so that millions fit and worker processes share.

    Attributes:
        stamps: (S, 2) int64, each shard's size in bytes and time of modification in ns.
        counts: (S,) int64, images in each shard; 0 is allowed.
        without_image: (S,) int64, samples in each shard that have no image and are not used.
        offsets: (N,) int64, where each image begins in its shard, in bytes.
        sizes: (N,) int64, each image's length in bytes.
        names: (M,) uint8, the members' names one after the other in UTF-8.
        name_ends: (N,) int64, where each name ends in ``names``.
    """

    stamps: np.ndarray
    counts: np.ndarray
    without_image: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    names: np.ndarray
    name_ends: np.ndarray

    def __post_init__(self):
        self.ends = np.cumsum(self.counts)

    def __len__(self) -> int:
        return len(self.offsets)

    def shard_of(self, index: int) -> int:
        """The number of the shard that holds image ``index``."""
        return int(np.searchsorted(self.ends, index, side="right"))

    def name_of(self, index: int) -> str:
        """The name of image ``index`` within its shard."""
        start = self.name_ends[index - 1] if index else 0
        return self.names[start : self.name_ends[index]].tobytes().decode(errors="surrogateescape")


@dataclass
class ShardContent:
    """The images of one shard: ``(name, offset, size)`` each, and the number of samples without one."""

    images: list[tuple[str, int, int]]
    without_image: int


def open_index(paths: Sequence[Path], image_key: str = "", folder: str | Path | None = None) -> ShardIndex:
    """The index of these shards, read from its file if that is newer than none of them, else made and written.

    The main process writes the file, in one step; where the folder cannot be written to, every process reads the
    headers anew in each run and a warning says so. Processes that start before the file is there make the same index.

    Args:
        paths: the shards; their order is that of the images.
        image_key: the extension that marks the image of a sample, as ``"jpg"``; empty: the one that is an image's.
        folder: where the index file is kept; None: beside the first shard.

    Raises:
        DataError: shards that are broken (truncated, compressed, no tar file), or none holds an image.
    """
    stamps = stamps_of(paths)
    return _open_index(tuple(paths), tuple(map(tuple, stamps.tolist())), image_key, Path(folder or paths[0].parent))


@functools.lru_cache(maxsize=4)  # the check before a run and the data set need the same
def _open_index(paths: tuple[Path, ...], stamps: tuple, image_key: str, folder: Path) -> ShardIndex:
    file = folder / index_name(paths, image_key)
    index = _load(file, np.array(stamps, np.int64))
    if index is None:
        print_log(f"reading the headers of {len(paths)} shards, once", logger="current")
        contents, broken = read_shards(paths, image_key)
        refuse("shards cannot be used", broken, "make or fetch them again")
        index = make_index(contents, np.array(stamps, np.int64))
        if _is_first_process():
            _save(index, file)
    if not len(index):
        raise DataError(
            f"the {len(paths)} shards of {paths[0].parent} hold no image", "check the pattern and image_key"
        )
    return index


def _is_first_process() -> bool:
    """Whether to write; on GPUs mmengine connects the processes, and learns their ranks, only after the first check."""
    return is_main_process() and int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0


def index_name(paths: Sequence[Path], image_key: str) -> str:
    """The index file's name, another for each list of shards."""
    content = "\n".join([str(_FORMAT), image_key, *(os.path.relpath(path, paths[0].parent) for path in paths)])
    return f"shard_index-{hashlib.sha256(content.encode()).hexdigest()[:12]}.npz"


def stamps_of(paths: Sequence[Path]) -> np.ndarray:
    """(S, 2) int64: size in bytes and time of modification in ns."""
    return np.array([(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, paths)], np.int64).reshape(-1, 2)


def read_shards(paths: Sequence[Path], image_key: str = "") -> tuple[list[ShardContent], list[str]]:
    """All shards' contents (an empty one for each broken shard), and ``"shard: reason"`` for each broken shard."""

    def attempt(path: Path) -> ShardContent | str:
        try:
            return read_shard(path, image_key)
        except BrokenShard as reason:
            return f"{path}: {reason}"

    with ThreadPoolExecutor(min(_READERS, len(paths))) as pool:
        results = list(pool.map(attempt, paths))
    contents = [ShardContent([], 0) if isinstance(result, str) else result for result in results]
    return contents, [result for result in results if isinstance(result, str)]


def read_shard(path: Path, image_key: str = "") -> ShardContent:
    """The images of one shard, from its headers; the images themselves are not read.

    Raises:
        BrokenShard: no uncompressed tar file, one that ends too early, a member twice, or a sample of several images.
    """
    images, without = [], 0
    try:
        for sample in group_by_keys(_members(path)):
            place = _image_of(sample, image_key)
            if place is None:
                without += 1
            else:
                images.append(place)
    except BrokenShard:
        raise
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BrokenShard(f"it is no whole, uncompressed tar file ({error})") from error
    except ValueError as error:  # webdataset's, of a member that is there twice
        raise BrokenShard(str(error.args[0])) from error
    return ShardContent(images, without)


def _members(path: Path) -> Iterator[dict]:
    """What webdataset's ``tar_file_iterator`` gives, with each file's place in place of its content."""
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            if member.isreg() and not _META.match(member.name):
                place = (member.name, member.offset_data, member.size)
                yield dict(fname=member.name, data=place, __url__=str(path))
            archive.members = []
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(_BLOCK) != bytes(_BLOCK):
            # tarfile takes a header cut short, or none at all, for the end; a whole archive ends in zeros
            raise BrokenShard(f"it is truncated or damaged at byte {archive.offset} (no end-of-archive marker)")


def _image_of(sample: dict, image_key: str) -> tuple[str, int, int] | None:
    """``(name, offset, size)`` of the sample's image: ``x.jpg``, or ``x.crop.jpg`` where there is no shorter one."""
    places = {key: value for key, value in sample.items() if not key.startswith("__")}
    if image_key:
        return places.get(image_key.lower())
    images = [key for key in places if is_image_name(f".{key}")]
    shortest = min((key.count(".") for key in images), default=0)
    best = [key for key in images if key.count(".") == shortest]
    if len(best) > 1:
        raise BrokenShard(f"its sample {sample['__key__']!r} has several images {best}; set image_key to one of them")
    return places[best[0]] if best else None


def make_index(contents: Sequence[ShardContent], stamps: np.ndarray) -> ShardIndex:
    """Columns from the contents of all shards."""
    images = [image for content in contents for image in content.images]
    names = [name.encode(errors="surrogateescape") for name, _, _ in images]
    return ShardIndex(
        stamps=stamps,
        counts=np.array([len(content.images) for content in contents], np.int64),
        without_image=np.array([content.without_image for content in contents], np.int64),
        offsets=np.array([offset for _, offset, _ in images], np.int64),
        sizes=np.array([size for _, _, size in images], np.int64),
        names=np.frombuffer(b"".join(names), np.uint8),
        name_ends=np.cumsum([len(name) for name in names], dtype=np.int64),
    )


def _save(index: ShardIndex, file: Path) -> None:
    columns = {field.name: getattr(index, field.name) for field in fields(ShardIndex)}
    own = file.with_name(f".{file.name}.{platform.node()}-{os.getpid()}")  # another run may be writing the same
    try:
        write_atomically(own, lambda stream: np.savez(stream, **columns))
        os.replace(own, file)
    except OSError as error:
        print_log(
            f"the index of the shards cannot be kept in {file.parent} ({error.strerror}): their headers will be read "
            "in every run; give the data set an index_folder that can be written to",
            logger="current",
            level=logging.WARNING,
        )


def _load(file: Path, stamps: np.ndarray) -> ShardIndex | None:
    """The index in the file, or None if there is none, or it is of other shards than these."""
    try:
        with np.load(file) as columns:
            index = ShardIndex(**{field.name: columns[field.name] for field in fields(ShardIndex)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print_log(
            f"the index {file} cannot be read ({error}) and is made anew", logger="current", level=logging.WARNING
        )
        return None
    return index if np.array_equal(index.stamps, stamps) else None
