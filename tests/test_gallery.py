"""The leaderboard page's pictures: small versions in the page, whole ones beside it, and nothing else."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from emae_mm.leaderboard import (
    CodeVersion,
    FileIdentity,
    Hardware,
    Metric,
    Record,
    RecordError,
    gallery,
    read_record,
    write_leaderboard,
    write_record,
)

SHA = "0" * 64
TITLES = {"pictures/attention.png": "Attention", "pictures/confusion.png": "Confusion <matrix>"}


def record(**changes) -> Record:
    values = dict(
        task="imagenet-linear", protocol="mae-linear-probe-90e", data="ImageNet-1K", method="EMAE", arch="ViT-B/16",
        pretrain_data="ImageNet-1K", pretrain_epochs=800, metrics={"top1": Metric(68.0)}, primary="top1", seed=0,
        config=FileIdentity("config.json", SHA), code=CodeVersion("0.1.0"), libraries={}, hardware=Hardware("a CPU"),
        wall_clock_s=1.0,
    )  # fmt: skip
    return Record(**{**values, **changes})


def save_run(folder: Path, side: int = 400, **changes) -> Path:
    (folder / "pictures").mkdir(parents=True)
    for index, path in enumerate(TITLES):
        pixels = np.random.default_rng(index).integers(0, 256, (side, 2 * side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / path)
    write_record(record(**{"pictures": TITLES, **changes}), folder / "record.json")
    return folder


class Links(HTMLParser):
    """The page's links and the images in them."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.images = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs)["href"])
        elif tag == "img":
            self.images.append(dict(attrs))


def copies(out: Path) -> list[Path]:
    return sorted(path for path in (out / gallery.FOLDER).rglob("*") if path.is_file())


def test_record_with_pictures_survives_and_an_old_one_is_read(tmp_path):
    new = record(pictures=TITLES)
    write_record(new, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == new
    old = json.loads((tmp_path / "record.json").read_text())
    del old["pictures"]
    (tmp_path / "record.json").write_text(json.dumps(old))
    assert read_record(tmp_path / "record.json").pictures == {}


@pytest.mark.parametrize(
    "wrong", [{"/etc/picture.png": "x"}, {"../other/picture.png": "x"}, {"page.html": "x"}, {"a.png": ""}, ["a.png"]]
)
def test_pictures_lie_below_the_record(wrong):
    with pytest.raises(RecordError, match="pictures"):
        record(pictures=wrong)


def test_page_links_to_copies_beside_it_and_embeds_small_ones(tmp_path):
    work = save_run(tmp_path / "work" / "a run")
    files = write_leaderboard([tmp_path / "work"], tmp_path / "out", published=False)
    page = Links(files.html.read_text())
    linked = [tmp_path / "out" / unquote(link) for link in page.links if gallery.FOLDER in link]
    assert [path.read_bytes() for path in linked] == [(work / path).read_bytes() for path in TITLES]
    assert sorted(linked) == copies(tmp_path / "out")
    small = [image for image in page.images if image["alt"].startswith(tuple(TITLES.values()))]
    assert len(small) == 2 and small[1]["alt"] == "Confusion <matrix>, EMAE, ViT-B/16, seed 0"
    for image in small:
        kind, _, content = image["src"].partition(",")
        assert kind == "data:image/jpeg;base64"
        width, height = Image.open(io.BytesIO(base64.b64decode(content))).size
        assert (width, height) == (220, 110) and len(content) < 40_000
    assert "Pictures: EMAE, ViT-B/16, seed 0" in files.html.read_text()
    assert gallery.FOLDER not in files.markdown.read_text() + files.csv.read_text()


def test_the_page_stays_whole_when_the_work_directories_are_gone(tmp_path):
    save_run(tmp_path / "work" / "run")
    files = write_leaderboard([tmp_path / "work"], tmp_path / "out", published=False)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    page = Links((tmp_path / "elsewhere" / files.html.name).read_text())
    assert all((tmp_path / "elsewhere" / unquote(link)).is_file() for link in page.links if gallery.FOLDER in link)


def test_copies_of_runs_no_longer_shown_are_removed_and_nothing_else(tmp_path):
    save_run(tmp_path / "work" / "old")
    write_leaderboard([tmp_path / "work"], tmp_path / "out", published=False)
    before = copies(tmp_path / "out")
    mine = tmp_path / "out" / gallery.FOLDER / "mine" / "notes.txt"
    mine.parent.mkdir()
    mine.write_text("not a copy")
    (tmp_path / "work" / "old").rename(tmp_path / "set aside")
    save_run(tmp_path / "work" / "new", seed=1)
    write_leaderboard([tmp_path / "work"], tmp_path / "out", published=False)
    after = copies(tmp_path / "out")
    assert mine in after and len(after) == 3 and not set(before) & set(after)


def test_runs_without_pictures_need_no_folder(tmp_path):
    save_run(tmp_path / "work" / "run", pictures={})
    files = write_leaderboard([tmp_path / "work"], tmp_path / "out", published=False)
    assert not (tmp_path / "out" / gallery.FOLDER).exists() and "Pictures:" not in files.html.read_text()


def test_what_cannot_be_shown_is_said(tmp_path, monkeypatch):
    work = save_run(tmp_path / "work" / "gone")
    (work / "pictures" / "attention.png").unlink()
    (work / "pictures" / "confusion.png").write_bytes(b"no picture")
    text = write_leaderboard([work], tmp_path / "out", published=False).html.read_text()
    assert "Attention: the file is no longer beside the record" in text
    assert "Confusion &lt;matrix&gt;: the file is no image" in text
    monkeypatch.setattr(gallery, "LARGEST_MB", 1e-3)
    work = save_run(tmp_path / "large" / "run")
    text = write_leaderboard([work], tmp_path / "bounded", published=False).html.read_text()
    assert len(re.findall(r"larger than 0.001 MB", text)) == 2
    assert not (tmp_path / "bounded" / gallery.FOLDER).exists()
