"""Tar shards as a data set: patterns, index, reading, and the order of the samples."""

import functools
import gzip
import io
import itertools
import pickle
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset
from mmengine.registry import DATA_SAMPLERS as ROOT_SAMPLERS
from tar_shards import jpeg, write_shards
from torch.utils.data import DataLoader

from emae_mm.data.checks import Inspection, check_config_data, check_dataset
from emae_mm.data.shards import index as shard_index
from emae_mm.data.shards import reading
from emae_mm.data.shards.order import InfiniteShardSampler, ShardSampler, shuffled
from emae_mm.data.shards.patterns import list_shards
from emae_mm.engine.seeding import SeededSampler
from emae_mm.errors import ConfigError, DataError
from emae_mm.registry import DATASETS

COUNTS = (3, 0, 5, 1)
LOAD = [dict(type="emae_mm.LoadImage")]


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path / "train", COUNTS)
    (tmp_path / "train/._s-0.tar").write_bytes(b"left by another system")
    return tmp_path


@pytest.fixture(autouse=True)
def _forget():
    """Every test opens its index as a new process would."""
    shard_index._open_index.cache_clear()


def build(root, shards="train", **options):
    return DATASETS.build(dict(type="emae_mm.TarShards", data_root=str(root), shards=shards, **options))


def truncate(path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def test_patterns(folder):
    names = ["s-0.tar", "s-1.tar", "s-2.tar", "s-3.tar"]
    for pattern in ("", "train", "train/s-{0..3}.tar", "train/s-*.tar", "train/s-{0..1}.tar::train/s-{2,3}.tar",
                    ["train/s-0.tar", "train/s-{1..3}.tar"], str(folder / "train/s-{0..3}.tar")):  # fmt: skip
        assert [path.name for path in list_shards(pattern, folder)] == names, pattern
    assert [path.name for path in list_shards("train/s-{3,0}.tar", folder)] == ["s-3.tar", "s-0.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("train/s-{0..5}.tar", r"do not exist: .*s-4\.tar, .*s-5\.tar \(2 in all\)"),
        ("absent", "do not exist: .*absent"),
        ("train/x*.tar", "holds no shard"),
        (["train", "train/s-2.tar"], r"named twice: .*s-2\.tar \(1 in all\)"),
        ("https://host/s-{0..3}.tar", "read as a stream"),
        ("pipe:cat s-0.tar", "read as a stream"),
        ("${ABSENT}/s-0.tar", "cannot be expanded .*ABSENT"),
    ],
)
def test_pattern_errors(folder, pattern, message):
    with pytest.raises(DataError, match=message):
        list_shards(pattern, folder)


def test_samples_are_those_that_webdataset_reads(folder):
    data = build(folder, pipeline=LOAD)
    urls = [str(path) for path in list_shards("train", folder)]
    wanted = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    infos = [data.get_data_info(index) for index in range(len(data))]
    assert len(wanted) == len(data) == sum(COUNTS) and tuple(data.samples_per_shard) == COUNTS
    for one, info in zip(wanted, infos, strict=True):
        assert info["img_path"] == f"{one['__url__']}:{one['__key__']}.jpg"
        assert info["img_source"].read() == one["jpg"]
    assert data[4]["img"].shape == (16, 20, 3)


def test_other_members_of_tar_files(tmp_path):
    """Folders, notes of webdataset, several files a sample, long names: webdataset's reader is the reference."""
    path, long = tmp_path / "odd.tar", "d" * 90 + "/" + "e" * 120 + ".jpg"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("__note__"), None)
        folder = tarfile.TarInfo("deep")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        members = ["deep/a.JPG", "deep/a.txt", "b.json", "c.seg.png", "c.jpg", long, "._d.jpg", "noextension"]
        for number, name in enumerate(members):
            member = tarfile.TarInfo(name)
            member.size = len(jpeg(number))
            archive.addfile(member, io.BytesIO(jpeg(number)))
    content = shard_index.read_shard(path)
    samples = list(webdataset.WebDataset([str(path)], shardshuffle=False))
    wanted = [sample["jpg"] for sample in samples if "jpg" in sample]
    data = path.read_bytes()
    assert [data[offset : offset + size] for _, offset, size in content.images] == wanted
    assert [name for name, _, _ in content.images] == ["deep/a.JPG", "c.jpg", long]
    assert content.without_image == len(samples) - 3 == 1
    assert [name for name, _, _ in shard_index.read_shard(path, "seg.png").images] == ["c.seg.png"]


def test_a_sample_of_two_images_needs_a_key(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "two.tar")) as writer:
        writer.write({"__key__": "pair", "jpg": jpeg(0), "png": jpeg(1)})
    with pytest.raises(DataError, match=r"two\.tar: its sample 'pair' has several images .*set image_key"):
        build(tmp_path, "two.tar")
    assert build(tmp_path, "two.tar", image_key="png")[0]["img_source"].read() == jpeg(1)


def test_index_is_written_once_and_made_anew_when_shards_change(folder, monkeypatch):
    build(folder)
    (file,) = folder.rglob("shard_index-*.npz")
    assert not list(folder.rglob(".*tmp"))
    shard_index._open_index.cache_clear()
    read = []
    original = shard_index.read_shard
    monkeypatch.setattr(shard_index, "read_shard", lambda path, key: read.append(path) or original(path, key))
    first = file.read_bytes()
    assert len(build(folder)) == sum(COUNTS) and not read and file.read_bytes() == first
    write_shards(folder / "train", (3, 2, 5, 1))
    assert build(folder).samples_per_shard == [3, 2, 5, 1] and len(read) == 4
    file.write_bytes(first[: len(first) // 2])
    shard_index._open_index.cache_clear()
    assert len(build(folder)) == 11, "a damaged index is made anew"
    assert len(build(folder, "train/s-{0..1}.tar")) == 5 and len(list(folder.rglob("shard_index-*"))) == 2


def test_index_where_nothing_can_be_written(folder, monkeypatch, caplog):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shard_index, "write_atomically", refuse)
    assert len(build(folder)) == sum(COUNTS)
    monkeypatch.undo()
    shard_index._open_index.cache_clear()
    assert len(build(folder, index_folder=str(folder / "elsewhere"))) == sum(COUNTS)
    assert list((folder / "elsewhere").iterdir()) and not list((folder / "train").glob("shard_index*"))


@pytest.mark.parametrize("cut", ["in an image", "in a header", "between two files", "before the end marker", "empty"])
def test_truncated_shard(folder, cut):
    path = folder / "train/s-2.tar"
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    keep = {
        "in an image": members[4].offset_data + 10,
        "in a header": members[4].offset + 100,
        "between two files": members[4].offset,
        "before the end marker": members[-1].offset_data + 512,
        "empty": 0,
    }
    truncate(path, keep[cut])
    with pytest.raises(DataError, match=r"shards cannot be used: .*s-2\.tar: .*\(1 in all\)"):
        build(folder)
    assert not list(folder.rglob("shard_index-*")), "no index of broken shards is kept"
    report = check_dataset(dict(type="TarShards", data_root=str(folder)), Inspection(collect=True))
    assert len(report.broken) == 1 and "s-2.tar" in report.broken[0] and report.images == 4


@pytest.mark.parametrize("content", [b"no tar at all" * 99, gzip.compress(bytes(2048))], ids=["text", "gzip"])
def test_not_a_tar(folder, content):
    (folder / "train/s-1.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"s-1\.tar: it is no whole, uncompressed tar"):
        build(folder)


def test_shards_without_any_image(tmp_path):
    write_shards(tmp_path, (0, 0))
    with pytest.raises(DataError, match="hold no image"):
        build(tmp_path, "")


def test_only_the_first_process_writes_the_index(folder, monkeypatch):
    """Before the processes of a run are connected, only the environment tells them apart."""
    monkeypatch.setenv("RANK", "1")
    assert len(build(folder)) == sum(COUNTS) and not list(folder.rglob("*shard_index-*"))
    monkeypatch.setenv("RANK", "0")
    shard_index._open_index.cache_clear()
    build(folder)
    assert len(list(folder.rglob("*shard_index-*"))) == 1


def test_real_images_are_those_of_their_files(shared, tmp_path):
    root = shared / "data/imagenet_tiny/val"
    files = DATASETS.build(dict(type="emae_mm.ImageFolder", data_root=str(root), with_label=False, pipeline=LOAD))
    with webdataset.ShardWriter(str(tmp_path / "%03d.tar"), maxcount=30, verbose=0) as shards:
        for number in range(70):
            path = Path(files.get_data_info(number)["img_path"])
            shards.write({"__key__": f"{path.parent.name}_{path.stem}", "jpg": path.read_bytes()})
    data = build(tmp_path, "{000..002}.tar", pipeline=LOAD)
    assert data.samples_per_shard == [30, 30, 10]
    for number in range(70):
        assert np.array_equal(data[number]["img"], files[number]["img"])


def test_check_before_a_run(folder):
    dataset = dict(type="emae_mm.TarShards", data_root=str(folder), shards="train", pipeline=LOAD)
    cfg = dict(model=dict(type="emae_mm.EMAE"), train_dataloader=dict(dataset=dataset))
    (report,) = check_config_data(cfg)
    assert (report.kind, report.split, report.images, report.shards, report.sampled) == ("shards", "train", 9, 4, 9)
    assert report.notes == ["shards without an image: s-1.tar (1 in all)"]


def test_broken_images_follow_the_policy_of_loadimage(tmp_path):
    write_shards(tmp_path, (3, 2), broken=[3])
    data = build(tmp_path, "", pipeline=LOAD)
    with pytest.raises(DataError, match=r"the image .*s-1\.tar:image0003\.jpg cannot be used: the JPEG is truncated"):
        data[3]
    skip = [dict(type="emae_mm.LoadImage", on_broken="skip", max_broken=1)]
    np.random.seed(0)
    assert build(tmp_path, "", pipeline=skip)[3]["img_path"] != data.get_data_info(3)["img_path"]
    with pytest.raises(DataError, match=r"sampled images some cannot be used: .*s-1\.tar:image0003\.jpg"):
        check_dataset(dict(type="TarShards", data_root=str(tmp_path), pipeline=LOAD))
    assert check_dataset(dict(type="TarShards", data_root=str(tmp_path), pipeline=skip)).notes


def test_a_shard_cut_during_the_run_is_a_broken_image(folder):
    data = build(folder, pipeline=LOAD)
    truncate(folder / "train/s-2.tar", 3000)
    with pytest.raises(DataError, match=r"s-2\.tar:image0007\.jpg cannot be used: it cannot be read \(the shard ends"):
        data[7]


def test_data_set_in_worker_processes_and_pickled(folder):
    data = build(folder, pipeline=[*LOAD, dict(type="mmpretrain.PackInputs")])
    wanted = [int(data[index]["inputs"].sum()) for index in range(len(data))]
    loader = DataLoader(data, batch_size=3, num_workers=2, collate_fn=list, multiprocessing_context="fork")
    assert [int(sample["inputs"].sum()) for batch in loader for sample in batch] == wanted
    copy = pickle.loads(pickle.dumps(data))
    assert [int(copy[index]["inputs"].sum()) for index in range(len(copy))] == wanted


def test_threads_that_open_more_shards_than_stay_open(tmp_path, monkeypatch):
    write_shards(tmp_path, [2] * 12)
    few = functools.lru_cache(maxsize=2)(reading._open.__wrapped__)
    monkeypatch.setattr(reading, "_open", few)
    data = build(tmp_path, "")
    members = [data.get_data_info(index)["img_source"] for index in range(len(data))]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(30):
            for number, content in enumerate(pool.map(lambda member: member.read(), members)):
                path, offset, size, _ = members[number]
                assert content == Path(path).read_bytes()[offset : offset + size]


@pytest.mark.parametrize("key", ["ann_file", "indices"])
def test_options_of_other_data_sets_are_refused(folder, key):
    with pytest.raises(ConfigError, match=f"TarShards takes no .*{key}"):
        build(folder, **{key: "x"})


class Shards(list):
    """Stands for a data set: the length and the shards' sizes are all that samplers read."""

    def __init__(self, counts):
        super().__init__(range(sum(counts)))
        self.samples_per_shard = list(counts)


@pytest.fixture
def world(monkeypatch):
    """A function that makes samplers believe they are process r of W."""

    def be(rank, size):
        for place in ("emae_mm.data.shards.order", "emae_mm.engine.seeding"):
            monkeypatch.setattr(f"{place}.get_dist_info", lambda: (rank, size))

    return be


UNEVEN = (5, 0, 1, 17, 4, 2, 40, 8)


def test_order_is_a_permutation_that_reads_few_shards_at_a_time():
    order = shuffled(UNEVEN, 2, seed=3, epoch=1)
    assert sorted(order) == list(range(sum(UNEVEN)))
    shard = np.repeat(np.arange(len(UNEVEN)), UNEVEN)[order]
    first, last = ({s: int(f(np.flatnonzero(shard == s))) for s in set(shard)} for f in (np.min, np.max))
    open_at_once = [sum(first[s] <= position <= last[s] for s in first) for position in range(len(shard))]
    assert max(open_at_once) == 2
    assert (np.diff(order) != 1).mean() > 0.8, "within them samples are shuffled"
    for other in (shuffled(UNEVEN, 2, 3, 2), shuffled(UNEVEN, 2, 4, 1)):
        assert not np.array_equal(order, other)
    assert np.array_equal(order, shuffled(UNEVEN, 2, 3, 1))


def test_order_is_uniform_where_all_shards_are_mixed():
    places = np.array([np.argsort(shuffled((3, 0, 4), 3, 0, epoch)) for epoch in range(4000)])
    counts = np.stack([(places == place).sum(0) for place in range(7)])
    # 4000 / 7 each, standard deviation 22: five of them for 49 counts
    assert np.abs(counts - 4000 / 7).max() < 110


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_process_gets_equally_many_and_together_they_get_the_order(world, size):
    dealt = []
    for rank in range(size):
        world(rank, size)
        sampler = ShardSampler(Shards(UNEVEN), seed=5, shards_at_once=3)
        sampler.set_epoch(2)
        dealt.append(list(sampler))
        assert len(dealt[-1]) == len(sampler) == -(-77 // size)
    together = [index for step in zip(*dealt, strict=True) for index in step]
    order = shuffled(UNEVEN, 3, 5, 2).tolist()
    assert together == (order + order)[: len(together)]


@pytest.mark.parametrize("size", [1, 2, 3, 80])
def test_endless_order_does_not_depend_on_the_number_of_processes(world, size):
    wanted = [index for epoch in range(4) for index in shuffled(UNEVEN, 3, 5, epoch)]
    share = len(wanted) // size
    dealt = []
    for rank in range(size):
        world(rank, size)
        dealt.append(list(itertools.islice(InfiniteShardSampler(Shards(UNEVEN), seed=5, shards_at_once=3), share)))
    assert [index for step in zip(*dealt, strict=True) for index in step] == wanted[: share * size]


@pytest.mark.parametrize("skip", [0, 1, 30, 38, 39, 100])
def test_skipping_gives_exactly_the_remaining_samples(world, skip):
    """Through the wrapper that a run puts around it: index and augmentation seed go on, too."""
    world(1, 2)

    def seeded():
        inner = dict(type="emae_mm.InfiniteShardSampler", shards_at_once=3)
        return SeededSampler(Shards(UNEVEN), inner, seed=5)

    whole = [(int(index), index.seed) for index in itertools.islice(seeded(), skip + 50)]
    sampler = seeded()
    sampler.skip(skip)
    assert [(int(index), index.seed) for index in itertools.islice(sampler, 50)] == whole[skip:]


def test_augmentation_seeds_are_those_of_one_process(world):
    def pairs(rank, size):
        world(rank, size)
        inner = dict(type="emae_mm.ShardSampler", shards_at_once=3)
        return [(int(index), index.seed) for index in SeededSampler(Shards((4, 0, 8)), inner, seed=5)]

    assert Counter(pairs(0, 1)) == Counter(pairs(0, 2) + pairs(1, 2))


def test_without_shuffling_the_order_is_that_of_the_shards():
    assert list(ShardSampler(Shards((2, 3)), shuffle=False, seed=0)) == [0, 1, 2, 3, 4]


def test_sampler_errors(folder):
    with pytest.raises(ConfigError, match="the data set has none"):
        ROOT_SAMPLERS.build(dict(type="emae_mm.ShardSampler", dataset=[1, 2], seed=0))
    with pytest.raises(ConfigError, match="shards_at_once=0"):
        ShardSampler(Shards((1,)), seed=0, shards_at_once=0)
