"""The data set of images in tar shards."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset, force_full_init

from emae_mm.data.files import require_folder
from emae_mm.data.shards.index import open_index
from emae_mm.data.shards.patterns import list_shards
from emae_mm.data.shards.reading import TarMember
from emae_mm.errors import ConfigError
from emae_mm.registry import DATASETS


@DATASETS.register_module()
class TarShards(BaseDataset):
    """Images in tar shards, without labels, each with a number: for pre-training.

    Gives ``img_path`` (``"<shard>:<member>"``, for messages) and ``img_source``, from which ``LoadImage`` reads. Use it
    with ``ShardSampler`` or, for training counted in steps, ``InfiniteShardSampler``.

    Args:
        data_root: folder that ``shards`` is relative to.
        shards: a folder, a brace pattern, wildcards, or a list; see :func:`~emae_mm.data.shards.patterns.list_shards`.
        image_key: the extension that marks the image of a sample, as ``"jpg"``; empty: the one that is an image's.
        index_folder: where the index file is kept; None: beside the first shard.
        read_ahead: fetch a shard in order when its first image is read. Set it to False if several machines train from
            one network disk: each reads only its share of every shard then.
        **kwargs: as for mmengine's ``BaseDataset``, without ``ann_file``, ``data_prefix`` and ``indices``.

    Raises:
        DataError: no shard is found, shards are broken, or none holds an image.
    """

    def __init__(
        self,
        data_root: str = "",
        shards: str | Sequence[str] = "",
        image_key: str = "",
        index_folder: str | None = None,
        read_ahead: bool = True,
        **kwargs,
    ):
        if unknown := {"ann_file", "data_prefix", "indices"} & kwargs.keys():
            raise ConfigError(f"TarShards takes no {sorted(unknown)}", "name the shards in 'shards'")
        self.shards, self.image_key, self.index_folder, self.read_ahead = shards, image_key, index_folder, read_ahead
        super().__init__(data_root=data_root, data_prefix={}, serialize_data=False, **kwargs)

    def full_init(self) -> None:
        """Find the shards and their images."""
        if self._fully_initialized:
            return
        if self.data_root:
            require_folder(self.data_root, "data root")
        self.paths = [str(path) for path in list_shards(self.shards, self.data_root)]
        self.index = open_index([Path(path) for path in self.paths], self.image_key, self.index_folder)
        self._fully_initialized = True

    @property
    def samples_per_shard(self) -> list[int]:
        """Number of images in each shard; the images are numbered in this order."""
        self.full_init()
        return self.index.counts.tolist()

    @force_full_init
    def get_data_info(self, idx: int) -> dict:
        """``dict(img_path=str, img_source=TarMember, sample_idx=int)``."""
        idx = range(len(self))[idx]
        path = self.paths[self.index.shard_of(idx)]
        place = int(self.index.offsets[idx]), int(self.index.sizes[idx])
        return dict(
            img_path=f"{path}:{self.index.name_of(idx)}",
            img_source=TarMember(path, *place, self.read_ahead),
            sample_idx=idx,
        )

    @force_full_init
    def __len__(self) -> int:
        return len(self.index)
