"""Records, tables and the three files made of them."""

import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import re
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

import emae_mm
from emae_mm.errors import UserError
from emae_mm.leaderboard import (
    CodeVersion,
    FileIdentity,
    FoundRecord,
    Hardware,
    Metric,
    Record,
    RecordError,
    build,
    find_records,
    identify,
    leaderboard_command,
    load_published,
    print_summary,
    read_record,
    write_leaderboard,
    write_record,
)
from emae_mm.leaderboard.noise import judge_gap, published_noise, sampling_noise
from emae_mm.leaderboard.provenance import code_version, cpu_name, library_versions


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_record(**changes) -> Record:
    values = dict(
        task="imagenet-finetune",
        protocol="mae-finetune-100e",
        data="ImageNet-1K",
        method="EMAE",
        arch="ViT-B/16",
        pretrain_data="ImageNet-1K",
        pretrain_epochs=800,
        metrics={"top1": Metric(84.1)},
        primary="top1",
        seed=0,
        config=FileIdentity("config.py", sha("config")),
        encoder=FileIdentity("encoder.pth", sha("encoder")),
        code=CodeVersion("0.1.0", "abc"),
        libraries={"torch": "2.14.1"},
        hardware=Hardware("a CPU"),
        wall_clock_s=12.5,
    )
    return Record(**{**values, **changes})


def found(name: str = "run", **changes) -> FoundRecord:
    return FoundRecord(make_record(**changes), Path("/runs") / name / "record.json")


def save_run(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(f"# {folder.name}\n")
    record = make_record(config=identify(folder / "config.py", folder), **changes)
    write_record(record, folder / "record.json")
    return folder


def block_of(tables, protocol, data="ImageNet-1K"):
    (block,) = [b for table in tables for b in table.blocks if (b.protocol, b.data) == (protocol, data)]
    return block


# ---------------------------------------------------------------- records


def test_record_survives_the_round_trip(tmp_path):
    record = make_record(num_samples=50_000, peak_memory_mb=812.5, notes="größer | <b>", pretrain_epochs=None)
    write_record(record, tmp_path / "a" / "record.json")
    assert read_record(tmp_path / "a" / "record.json") == record
    assert json.loads((tmp_path / "a" / "record.json").read_text())["schema_version"] == 1


def test_random_start_has_no_encoder(tmp_path):
    record = make_record(method="random init", pretrain_data="none", pretrain_epochs=0, encoder=None)
    write_record(record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json").encoder is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (dict(task="imagenet"), "task"),
        (dict(protocol=" "), "protocol"),
        (dict(pretrain_epochs=-1), "pretrain_epochs"),
        (dict(metrics={}), "metrics"),
        (dict(metrics={"top1": Metric(float("nan"))}), r"metrics\.top1\.value"),
        (dict(metrics={"top1": Metric(-1.0)}), r"metrics\.top1\.value"),
        (dict(metrics={"top1": Metric(True)}), r"metrics\.top1\.value"),
        (dict(primary="mIoU"), "primary"),
        (dict(seed=-1), "seed"),
        (dict(seed=True), "seed"),
        (dict(config=FileIdentity("/home/me/config.py", sha("c"))), r"config\.path"),
        (dict(config=FileIdentity("C:\\runs\\config.py", sha("c"))), r"config\.path"),
        (dict(config=FileIdentity("../config.py", sha("c"))), r"config\.path"),
        (dict(encoder=FileIdentity("encoder.pth", "abc")), r"encoder\.sha256"),
        (dict(hardware=Hardware("a CPU", processes=0)), r"hardware\.processes"),
        (dict(wall_clock_s=float("inf")), "wall_clock_s"),
        (dict(num_samples=0), "num_samples"),
        (dict(created="yesterday"), "created"),
        (dict(created="2026-01-31T12:00:00+02:00"), "created"),
        (dict(libraries={"torch": None}), "libraries"),
    ],
)
def test_impossible_values_are_refused_by_name(changes, key):
    with pytest.raises(RecordError, match=f"record: {key} = "):
        make_record(**changes)


def test_bad_files_name_file_and_key(tmp_path):
    path = tmp_path / "record.json"
    write_record(make_record(), path)
    good = json.loads(path.read_text())

    def rejected(content) -> str:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(RecordError) as caught:
            read_record(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "key seed is missing" in rejected({k: v for k, v in good.items() if k != "seed"})
    assert "unknown key colour" in rejected({**good, "colour": "red"})
    assert "unknown key metrics.top1.scale" in rejected({**good, "metrics": {"top1": {"value": 1.0, "scale": 2}}})
    assert "schema_version is 99" in rejected({**good, "schema_version": 99})
    assert "metrics.top1.value" in rejected({**good, "metrics": {"top1": {"value": float("nan")}}})
    assert "config.sha256" in rejected({**good, "config": {"path": "c.py", "sha256": 5}})
    assert "hardware" in rejected({**good, "hardware": "big"})
    assert "must be a JSON object" in rejected([good])
    assert "cannot be read" in rejected('{"task": ')


def test_records_are_found_once_below_all_work_dirs(tmp_path):
    first, second = save_run(tmp_path / "a" / "x"), save_run(tmp_path / "b", seed=1)
    records = find_records(tmp_path, tmp_path / "a", second)
    assert [r.path for r in records] == [first.resolve() / "record.json", second.resolve() / "record.json"]
    with pytest.raises(UserError, match="does not exist"):
        find_records(tmp_path / "absent")


def test_importing_the_leaderboard_loads_no_framework():
    code = (
        "import sys, emae_mm.leaderboard, emae_mm.leaderboard.provenance as p; p.library_versions(); p.code_version();"
        "print([m for m in ('torch', 'mmengine', 'numpy', 'matplotlib', 'jinja2', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_provenance_is_what_is_installed():
    version = code_version()
    assert version.version == emae_mm.__version__
    assert version.commit is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", version.commit)
    assert library_versions()["torch"] == importlib.metadata.version("torch")
    make_record(code=version, libraries=library_versions(), hardware=Hardware(cpu_name()))  # passes the checks


# ---------------------------------------------------------------- rows


def test_seeds_of_one_configuration_are_merged():
    numbers = [84.1, 84.3, 83.9]
    records = [
        found(f"seed{seed}", seed=seed, metrics={"top1": Metric(value)}, config=FileIdentity("c.py", sha(str(seed))))
        for seed, value in enumerate(numbers)
    ]
    (row,) = block_of(build(records, []), "mae-finetune-100e").rows
    value = row.values["top1"]
    assert (value.n, len(row.runs)) == (3, 3)
    assert value.mean == pytest.approx(statistics.fmean(numbers))
    assert value.std == pytest.approx(statistics.stdev(numbers))


def test_a_repeated_run_counts_once_and_the_newest_counts():
    old = found("old", metrics={"top1": Metric(80.0)}, created="2026-01-01T00:00:00+00:00")
    new = found("new", metrics={"top1": Metric(84.0)}, created="2026-01-02T00:00:00+00:00")
    (row,) = block_of(build([new, old], []), "mae-finetune-100e").rows
    assert row.values["top1"].mean == 84.0 and row.values["top1"].n == 1


def test_the_same_seed_with_another_config_is_another_row():
    other = found("other", metrics={"top1": Metric(83.0)}, config=FileIdentity("c.py", sha("other")))
    assert len(block_of(build([found(), other], []), "mae-finetune-100e").rows) == 2


def test_protocols_and_data_sets_are_never_ranked_together():
    records = [
        found("a", metrics={"top1": Metric(10.0)}),
        found("b", protocol="mae-finetune-5e", metrics={"top1": Metric(90.0)}),
        found("c", data="emae-demo", metrics={"top1": Metric(99.0)}),
    ]
    tables = build(records, load_published())
    for table in tables:
        keys = [(block.protocol, block.data) for block in table.blocks]
        assert len(keys) == len(set(keys))
    assert len(block_of(tables, "mae-finetune-5e").rows) == 1
    assert len(block_of(tables, "mae-finetune-100e", "emae-demo").rows) == 1
    same = block_of(tables, "mae-finetune-100e")
    assert same.rows[-1].measured and same.rows[-1].rank == len(same.rows)
    assert same.rows[0].method == "EMAE" and same.rows[0].pretrain_epochs == 1600
    assert tables[0].task == "imagenet-finetune" and tables[0].has_measured


def test_cited_rows_of_unknown_recipe_are_listed_without_rank():
    block = block_of(build([], [r for r in load_published() if r.task == "imagenet-linear"]), "recipe of each source")
    assert not block.ranked and all(row.rank is None and row.gap is None for row in block.rows)


def test_equal_published_values_share_a_row_and_unequal_ones_say_so():
    tables = build([], load_published())
    finetune = block_of(tables, "mae-finetune-100e")
    (emae,) = [r for r in finetune.rows if r.method == "EMAE" and r.pretrain_epochs == 800]
    assert emae.values["top1"].mean == 84.0
    assert [source[:7] for source in emae.sources] == ["EMAE v1", "EMAE v2"]
    mae = [r for r in finetune.rows if (r.method, r.variant, r.pretrain_epochs) == ("MAE", "", 1600)]
    assert {r.values["top1"].mean for r in mae} == {83.6, 83.66}
    assert all(any("sources disagree" in note for note in r.notes) for r in mae)
    detection = block_of(tables, "vitdet-100e", "COCO")  # v1 leaves out the epochs, v2 gives them
    (emae,) = [r for r in detection.rows if r.method == "EMAE" and r.values["box_AP"].mean == 52.5]
    assert emae.pretrain_epochs == 800 and len(emae.sources) == 2


def test_every_published_value_reaches_a_table():
    published = [r for r in load_published() if r.value is not None]
    shown = {
        (block.task, block.protocol, row.method, row.variant, name, value.mean)
        for table in build([], published)
        for block in table.blocks
        for row in block.rows
        for name, value in row.values.items()
    }
    assert {(r.task, r.protocol, r.method, r.variant, r.metric, r.value) for r in published} == shown


def test_lower_is_better_ranks_upwards_and_ties_share_a_rank():
    def run(name, value):
        metrics = {"FID": Metric(value, "", False)}
        return found(name, task="reconstruction", protocol="p", method=name, metrics=metrics, primary="FID")

    block = block_of(build([run("a", 30.0), run("b", 20.0), run("c", 30.0)], []), "p")
    assert [(r.method, r.rank) for r in block.rows] == [("b", 1), ("a", 2), ("c", 2)]
    assert block.rows[1].gap == pytest.approx(10.0)


def test_losses_of_pretraining_are_not_ranked():
    run = found(task="pretrain", protocol="p", metrics={"loss": Metric(0.4, "", False)}, primary="loss")
    assert not block_of(build([run], []), "p").ranked


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(metrics={"top1": Metric(0.84, "")}), "metric top1 has unit ''"),
        (dict(metrics={"top1": Metric(84.0), "top5": Metric(96.0)}, primary="top5"), "ranks by"),
    ],
)
def test_records_that_cannot_share_a_table_are_refused(changes, message):
    with pytest.raises(RecordError, match=message):
        build([found("a"), found("b", seed=1, **changes)], [])


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize(("gap", "mark"), [(0.22, "within seed noise"), (0.23, "")])
def test_a_gap_below_two_sigma_of_the_difference_is_noise(gap, mark):
    # MAE's sigma is 0.08 for ViT-B: two single runs differ by sqrt(2) * 0.08, twice that is 0.226
    records = [
        found("a", method="A", metrics={"top1": Metric(84.0)}),
        found("b", method="B", metrics={"top1": Metric(84.0 - gap)}),
    ]
    best, second = block_of(build(records, []), "mae-finetune-100e").rows
    assert (best.mark, second.mark) == ("", mark)


def test_own_spread_counts_where_it_is_larger():
    records = [
        found(f"{method}{seed}", method=method, seed=seed, metrics={"top1": Metric(mean + offset)})
        for method, mean in (("A", 84.0), ("B", 83.0))
        for seed, offset in enumerate((-1.0, 0.0, 1.0))
    ]  # standard error 1/sqrt(3) each: twice that of the difference is 1.63
    assert block_of(build(records, []), "mae-finetune-100e").rows[1].mark == "within seed noise"


def test_known_noise_is_not_carried_over_to_other_data_or_tasks():
    assert published_noise("imagenet-finetune", "emae-demo", "ViT-B/16", "top1") is None
    assert published_noise("imagenet-linear", "ImageNet-1K", "ViT-B/16", "top1") is None
    assert published_noise("coco-vitdet", "COCO", "ViT-B", "mask_AP") is None
    assert published_noise("imagenet-finetune", "ImageNet-1K", "ViT-B/16", "top1", runs=4).error == pytest.approx(0.04)


def test_sampling_error_of_an_accuracy():
    assert sampling_noise("top1", "%", 50.0, 400).error == pytest.approx(2.5)  # 100 * sqrt(.25 / 400)
    assert sampling_noise("top1", "%", 100.0, 400).error > 0
    assert sampling_noise("mIoU", "%", 50.0, 400) is None
    assert sampling_noise("top1", "%", 50.0, None) is None
    shared_settings = dict(task="imagenet-knn", protocol="k", data="emae-demo", num_samples=400)
    records = [
        found(name, method=name, metrics={"top1": Metric(v)}, **shared_settings)
        for name, v in zip("ABC", (50, 44, 40), strict=True)
    ]
    marks = [row.mark for row in block_of(build(records, []), "k", "emae-demo").rows]
    assert marks == ["", "within sampling error", ""]  # 2 * sqrt(2) * 2.5 = 7.07


def test_unknown_noise_claims_nothing():
    noise = sampling_noise("top1", "%", 50.0, 400)
    assert judge_gap(30.0, None, None) == "seed noise unknown"
    assert judge_gap(30.0, noise, None) == "seed noise unknown"
    assert judge_gap(1.0, noise, None) == "within sampling error"


# ---------------------------------------------------------------- files


class Page(HTMLParser):
    """Checks nesting and collects attributes."""

    VOID = ("meta", "img", "br", "link", "hr")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.attributes, self.tags, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


ATTACK = '<script>alert("x")</script>|[a](javascript:b) `c`'


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("board")
    demo = dict(task="imagenet-linear", protocol="demo-linear", data="emae-demo", num_samples=500)
    save_run(root / "work" / "emae", **demo, metrics={"top1": Metric(61.2)})
    save_run(root / "work" / "mae", **demo, method="MAE", metrics={"top1": Metric(55.0)}, notes=ATTACK)
    save_run(root / "work" / "evil", **demo, method=ATTACK, metrics={"top1": Metric(5.0)})
    save_run(root / "work" / "full size", metrics={"top1": Metric(83.9)})
    (root / "picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    figures = [("Reconstructions", root / "picture.svg")]
    return root, write_leaderboard([root / "work"], root / "out", figures=figures)


def test_page_is_well_formed_and_loads_nothing(board):
    text = board[1].html.read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    for tag, name, value in page.attributes:
        if name in {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}:
            assert value.startswith(("data:", "#")) or re.match(r"^[^:]*$", value), (tag, name, value)
    assert not re.search(r"url\((?!#)", text) and "@import" not in text
    charts = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(charts) == 2  # one for each block with measured rows
    for chart in charts:
        ElementTree.fromstring(chart)
    assert 'src="data:image/svg+xml;base64,' in text


def test_text_of_users_is_escaped_everywhere(board):
    _, files = board
    assert "<script" not in files.html.read_text()
    text = files.markdown.read_text()
    assert "<script" not in text and "[a](javascript" not in text
    tables = re.findall(r"((?:^\|.*\n)+)", text, flags=re.MULTILINE)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    ((row,),) = [[r for r in csv.DictReader(io.StringIO(files.csv.read_text())) if r["method"] == ATTACK]]
    assert row["value"] == "5.0"


def test_demonstration_results_carry_their_label(board):
    _, files = board
    label = "demonstration data, not a benchmark"
    assert f"demo-linear on emae-demo ({label})" in files.markdown.read_text()
    assert f'<span class="demo">{label}</span>' in files.html.read_text()
    rows = list(csv.DictReader(io.StringIO(files.csv.read_text())))
    assert all((row["demonstration"] == label) == (row["data"] == "emae-demo") for row in rows)


def test_measured_rows_link_to_record_and_config(board):
    root, files = board
    digest = hashlib.sha256((root / "work" / "full size" / "config.py").read_bytes()).hexdigest()
    for text in (files.markdown.read_text(), files.html.read_text()):
        assert "../work/full%20size/record.json" in text
        assert "../work/full%20size/config.py" in text
        assert f"config {digest[:12]}" in text
        assert f"encoder {sha('encoder')[:12]}" in text
        assert str(root) not in text
    (row,) = [r for r in csv.DictReader(io.StringIO(files.csv.read_text())) if digest in r["config_sha256"]]
    assert row["kind"] == "measured" and row["encoder_sha256"] == sha("encoder")
    assert (files.csv.parent / row["records"].replace("%20", " ")).is_file()


def test_csv_holds_each_number_once(board):
    rows = list(csv.DictReader(io.StringIO(board[1].csv.read_text())))
    lost = [row for row in rows if "header lost" in row["metric"]]
    assert lost and "header lost)" not in board[1].markdown.read_text()
    keys = [tuple(row[k] for k in ("task", "protocol", "method", "variant", "arch", "pretrain_data", "pretrain_epochs",
                                   "metric", "sources", "records", "value")) for row in rows]  # fmt: skip
    assert len(keys) == len(set(keys))


def test_output_does_not_depend_on_when_it_is_made(board):
    root, files = board
    before = {path: path.read_bytes() for path in (files.markdown, files.csv, files.html)}
    write_leaderboard([root / "work"], root / "out", figures=[("Reconstructions", root / "picture.svg")])
    assert before == {path: path.read_bytes() for path in before}


def test_summary_shows_measured_rows_and_their_published_neighbours(board):
    console = Console(file=io.StringIO(), width=200)
    print_summary(board[1].tables, console)
    text = console.file.getvalue()
    assert "demo-linear on emae-demo (demonstration data" in text and "83.9" in text
    assert "84.0" in text and "83.8" in text  # the published rows above and below 83.9
    assert "71.2" not in text and "Cascade" not in text


def test_several_seeds_are_shown_as_mean_and_spread(tmp_path):
    for seed, value in enumerate((84.0, 84.2)):
        save_run(tmp_path / "work" / str(seed), seed=seed, metrics={"top1": Metric(value)})
    files = write_leaderboard([tmp_path / "work"], tmp_path, published=False)
    assert "| 84.1 ± 0.14 (2) |" in files.markdown.read_text()
    assert "mae-upernet" not in files.markdown.read_text()


def test_nothing_to_show_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty"):
        leaderboard_command([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UserError, match="neither"):
        write_leaderboard([], tmp_path / "out", published=False)
    assert not (tmp_path / "out").exists()


def test_published_results_alone_need_no_work_dir(tmp_path, capsys):
    files = leaderboard_command([], tmp_path / "out")
    assert "EMAE" in files.markdown.read_text() and "measured" not in {
        r.kind for t in files.tables for b in t.blocks for r in b.rows
    }
    assert f"wrote {files.html}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["absent.png", "picture.bmp"])
def test_an_unusable_figure_is_named(tmp_path, name):
    with pytest.raises(UserError, match=name):
        write_leaderboard([], tmp_path / "out", figures=[("A picture", tmp_path / name)])


def test_records_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_record().seed = 3
