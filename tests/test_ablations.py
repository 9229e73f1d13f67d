"""The ablation suites: which cells they run, and tables whose every number has a source."""

import csv
import io
import statistics
from pathlib import Path

import pytest
from mmengine.config import Config
from rich.console import Console

from emae_mm.errors import ConfigError
from emae_mm.leaderboard import (
    DEMO_DATA,
    CodeVersion,
    FileIdentity,
    FoundRecord,
    Hardware,
    Metric,
    PaperTableSpec,
    Record,
    RecordError,
    build_paper_tables,
    load_published,
    print_paper_tables,
    write_paper_tables,
)
from emae_mm.leaderboard.rows import measured_rows
from emae_mm.models.masking import hidden_mask
from emae_mm.registry import MODELS
from emae_mm.suite import Suite, load_suite, plan

# protocol 1.3 and 1.4: part sizes, parts, pixel and consistency weight, and the epochs at which a table shows it
CELLS = {
    "MAE": ([49], 1.0, 0.0, {100, 200, 300, 800, 1600}),
    "MAE, 6/7 hidden": ([28], 1.0, 0.0, {100, 300, 800}),
    "MAE, 13/14 hidden": ([14], 1.0, 0.0, {100, 300, 800}),
    "EMAE": ([49] * 4, 1.0, 1.0, {100, 200, 300, 800, 1600}),
    "EMAE, K=7": ([28] * 7, 1.0, 1.0, {100, 300, 800}),
    "EMAE, K=14": ([14] * 14, 1.0, 1.0, {100, 300, 800}),
    "EMAE, pixel only": ([49] * 4, 1.0, 0.0, {100, 200, 300, 800}),
    "EMAE, consistency only": ([49] * 4, 0.0, 1.0, {200}),
    "pure random masking": ([49] * 4, 1.0, 0.0, {200}),
    "complementary masking": ([49, 147], 1.0, 0.0, {200}),
}
MASKINGS = {"pure random masking": "PureRandomMasking", "complementary masking": "ComplementaryMasking"}
TINY = dict(arch=dict(embed_dim=8, depth=1, num_heads=1))


@pytest.mark.parametrize("name, scale", [("ablations", 1.0), ("ablations_demo", 0.01)])
def test_every_cell_of_the_papers_tables_is_run_once(name, scale):
    suite = load_suite(name)
    stages = plan(suite, Path("data"), Path("out"))
    trained = [(s.method, s.options["train_cfg.max_epochs"], s.seed) for s in stages if s.kind == "pretrain"]
    seeds = {200: range(2)} if name == "ablations_demo" else {}
    expected = {
        (method, round(epochs * scale), seed)
        for method, (*_, all_epochs) in CELLS.items()
        for epochs in all_epochs
        for seed in seeds.get(epochs, [0])
    }
    # in small, Tables X and XI, which hold the 200-epoch cells, ask for two seeds
    assert set(trained) == expected and len(trained) == len(expected)
    assert [epochs for _, epochs, _ in trained] == sorted((epochs for _, epochs, _ in trained), reverse=True)
    assert len({s.work_dir for s in stages}) == len(stages)
    probed = [s for s in stages if s.kind == "transfer" and s.pretrained != "random"]
    assert {Path(s.pretrained).parent for s in probed} == {s.work_dir for s in stages if s.kind == "pretrain"}
    assert all(s.after == Path(s.pretrained).parent for s in probed)
    assert stages[-1].kind == "tables"


@pytest.mark.parametrize("name, patches", [("ablations", 196), ("ablations_demo", 56)])
def test_every_variant_has_the_papers_masks_and_losses(name, patches):
    stages = {s.method: s for s in plan(load_suite(name), Path("d"), Path("o")) if s.kind == "pretrain"}
    assert set(stages) == set(CELLS)
    for method, (sizes, pixel, consistency, _) in CELLS.items():
        cfg = Config.fromfile(stages[method].config)
        cfg.merge_from_dict(stages[method].options)
        full = dict(cfg.model.backbone)
        cfg.model.backbone.arch = TINY["arch"] if isinstance(full["arch"], str) else full["arch"]
        cfg.model.decoder = dict(decoder_dim=8, depth=1, num_heads=1)
        model = MODELS.build(cfg.model)
        assert model.backbone.num_patches == patches
        assert (model.reconstruction_weight, model.consistency_weight) == (pixel, consistency), method
        assert type(model.masking).__name__ == MASKINGS.get(
            method, "RandomMasking" if method.startswith("MAE") else "ParallelMasking"
        )
        groups = model.masking.split(model.masking.draw(2, patches))
        visible = [int(n) for ids in groups for n in (1 - hidden_mask(ids, patches)).sum(-1)[0]]
        assert visible == [size * patches // 196 for size in sizes], method
        if method == "EMAE, consistency only":
            assert model.log_prediction_variance


def test_full_size_cells_follow_the_papers_schedule():
    for stage in plan(load_suite("ablations"), Path("d"), Path("o")):
        if stage.kind == "pretrain":
            cfg = Config.fromfile(stage.config)
            assert cfg.global_batch_size == 4096 and cfg.param_scheduler[0].end == 40
            assert cfg.optim_wrapper.optimizer.lr == pytest.approx(1.5e-4 * 16)


def found(method: str, epochs: float, top1: float, seed: int = 0, **changes) -> FoundRecord:
    values = dict(
        task="imagenet-linear", protocol="demo-linear", data=DEMO_DATA, method=method, arch="ViT-64x4/8",
        pretrain_data=DEMO_DATA, pretrain_epochs=epochs, metrics={"top1": Metric(top1)}, primary="top1", seed=seed,
        config=FileIdentity("config.json", "0" * 64), encoder=FileIdentity("encoder.pth", f"{seed}" * 64),
        code=CodeVersion("0"), libraries={}, hardware=Hardware("cpu"), wall_clock_s=1.0, num_samples=400,
    )  # fmt: skip
    folder = f"{method}/{epochs}/{seed}/{changes.get('task', 'linear')}"
    return FoundRecord(Record(**{**values, **changes}), Path("/runs") / folder / "record.json")


def specs() -> dict[str, PaperTableSpec]:
    return {spec.title.split(":")[0]: spec for spec in load_suite("ablations_demo").table_specs()}


def cells(table) -> dict[tuple[str, float], object]:
    rows = zip(table.spec.rows, table.cells, strict=True)
    return {(row.run, cell.epochs): cell for row, line in rows for cell in line}


def test_published_values_are_the_papers():
    tables = {
        t.spec.title.split(":")[0]: cells(t) for t in build_paper_tables(specs().values(), [], load_published(), 0.01)
    }
    spots = {
        ("Table X", "EMAE, pixel only", 200): 63.4,
        ("Table X", "complementary masking", 200): 46.7,
        ("Table XI", "EMAE, consistency only", 200): 64.9,
        ("Table XII", "EMAE", 300): 68.4,
        ("Table XII", "MAE", 100): 54.8,
        ("Table XIII", "MAE", 1600): 67.8,
        ("Table XIII", "EMAE", 1600): 71.2,
        ("Table XIV", "EMAE, K=14", 800): 66.7,
        ("Table XIV", "MAE, 6/7 hidden", 300): 61.0,
        ("Table XIV", "MAE, 13/14 hidden", 100): 46.4,
    }
    for (table, run, epochs), value in spots.items():
        assert tables[table][run, epochs].published.value == value, (table, run, epochs)
    assert all(cell.published for table in tables.values() for cell in table.values()), "a cell without its number"
    assert all(cell.measured is None for table in tables.values() for cell in table.values())


def test_a_cell_is_the_mean_and_spread_of_its_own_records():
    numbers = [50.0, 52.0, 57.0]
    records = [found("EMAE", 2, value, seed) for seed, value in enumerate(numbers)]
    records += [found("EMAE", 3, 60.0), found("EMAE, pixel only", 2, 40.0), found("other", 2, 1.0)]
    variance = {"loss": Metric(0.5, "", False), "prediction_variance": Metric(0.25, "")}
    records.append(found("EMAE", 2, 0.0, task="pretrain", protocol="p", metrics=variance, primary="loss"))
    table = cells(build_paper_tables([specs()["Table XI"]], records, load_published(), 0.01)[0])
    full = table["EMAE", 200]
    assert full.measured.mean == pytest.approx(53.0) and full.measured.n == 3
    assert full.measured.std == pytest.approx(statistics.stdev(numbers))
    assert full.pretrain["prediction_variance"].mean == 0.25
    assert table["EMAE, pixel only", 200].measured.std is None
    assert table["EMAE, consistency only", 200].measured is None


def test_tables_say_what_is_missing_and_where_numbers_come_from(tmp_path):
    records = [found("EMAE", 2, value, seed) for seed, value in enumerate((50.0, 52.0))]
    tables = build_paper_tables([specs()["Table XI"]], records, load_published(), 0.01)
    paths = {path.suffix: path for path in write_paper_tables(tables, tmp_path, "title")}
    line = next(line for line in paths[".md"].read_text().splitlines() if line.startswith("| (c) both"))
    assert line == "| (c) both | 51.0 ± 1.41 (2) | 65.0 | – |"
    assert "| (b) self-consistency only | not measured | 64.9 | – |" in paths[".md"].read_text()
    assert "demonstration data, not a benchmark" in paths[".md"].read_text()
    assert "100 published epochs are one epoch here" in paths[".md"].read_text()
    rows = {row["row"]: row for row in csv.DictReader(paths[".csv"].open())}
    both, missing = rows["(c) both"], rows["(b) self-consistency only"]
    assert (float(both["measured"]), both["n"], both["published"], both["epochs"]) == (51.0, "2", "65.0", "2")
    assert (missing["measured"], missing["n"], missing["records"]) == ("", "", "")
    assert both["records"].count("record.json") == 2
    page = paths[".html"].read_text()
    assert "51.0 ± 1.41 (2)" in page and page.count('title="record of seed') == 2 and "://" not in page
    console = Console(file=io.StringIO(), width=200)
    print_paper_tables(tables, console)
    shown = console.file.getvalue()
    assert "51.0 ± 1.41 (2)" in shown and "not measured" in shown and "2 cells not measured" in shown


def test_records_of_another_recipe_are_never_averaged():
    other = found("EMAE", 2, 10.0, 1, pretrain_protocol="emae, with model.num_parts=7")
    records = [found("EMAE", 2, 50.0), other]
    assert len(measured_rows(records)) == 2
    assert any("model.num_parts=7" in note for row in measured_rows(records) for note in row.notes)
    with pytest.raises(RecordError, match="different settings"):
        build_paper_tables([specs()["Table XI"]], records, load_published(), 0.01)


def table(**changes) -> dict:
    row = dict(label="a", run="EMAE", published=dict(method_in_source="EMAE"))
    published = dict(source_table="Table XIII", task="imagenet-linear")
    return dict(title="T", epochs=[1600], published=published, rows=[row]) | changes


def test_wrong_tables_are_refused():
    def suite(**changes):
        spec = dict(config="pretrain/mae_vit-base-p16_8xb512-300e_in1k.py", data="")
        kwargs = dict(name="s", pretrain={"EMAE": spec}, transfer={}, tables={"T": table()})
        return Suite(**(kwargs | changes))

    assert plan(suite(), Path("d"), Path("o"))[0].options["train_cfg.max_epochs"] == 1600
    for changes, message in (
        (dict(tables={"T": table(colour=1)}), "unknown keys .*colour"),
        (dict(tables={"T": table(published=dict(colour=""))}), "no column 'colour'"),
        (dict(pretrain={}), "tables name .'EMAE'"),
        (dict(epoch_scale=0.0003), "0.48 epochs"),
        (dict(pretrain=suite().pretrain | {"other": {}}), "no table shows .'other'"),
        (dict(baselines={"emae": "random"}), "share a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan(suite(**changes), Path("d"), Path("o"))
    for published, message in ((dict(source_table="Table 0"), "no published"), ({}, "published results match")):
        spec = PaperTableSpec.from_dict(table(published=published))
        with pytest.raises(ConfigError, match=message):
            build_paper_tables([spec], [], load_published())
