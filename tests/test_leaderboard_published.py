"""The published results: complete, cleaned, and equal to what the papers say."""

import csv
from collections import Counter

import pytest

from emae_mm.errors import DataError
from emae_mm.leaderboard import load_published
from emae_mm.leaderboard.metrics import METRICS, TASK_TITLES
from emae_mm.leaderboard.published import PUBLISHED_CSV


@pytest.fixture(scope="module")
def published():
    return load_published()


def values(published, **wanted):
    return {r.value for r in published if all(getattr(r, key) == value for key, value in wanted.items())}


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        # EMAE, arXiv:2302.14431v2, Tables II, III, IV and VI
        (dict(task="imagenet-linear", method="EMAE", arch="ViT-B", pretrain_epochs=800), 70.4),
        (dict(task="imagenet-finetune", method="EMAE", arch="ViT-B", pretrain_epochs=800), 84.0),
        (dict(task="imagenet-finetune", method="EMAE", arch="ViT-L", pretrain_epochs=800), 86.3),
        (dict(task="imagenet-linear", method="EMAE", arch="ViT-B", pretrain_epochs=300), 68.2),
        (dict(task="coco-maskrcnn-fpn", method="EMAE", metric="box_AP", pretrain_epochs=300), 50.6),
        (dict(task="coco-vitdet-cascade", method="EMAE", arch="ViT-B", metric="mask_AP", pretrain_epochs=800), 47.6),
        (dict(task="ade20k-upernet", protocol="mae-upernet-160k", method="EMAE", pretrain_epochs=300), 48.4),
        (dict(task="ade20k-upernet-cae", method="EMAE"), 50.8),
        # the repositories
        (dict(source="implus/mae_segmentation README"), 48.15),
        (dict(task="imagenet-knn", variant="lightly"), 11.2),
        (dict(task="imagenet-linear", variant="mmpretrain", arch="ViT-L"), 75.5),
    ],
)
def test_known_numbers(published, wanted, value):
    assert values(published, **wanted) == {value}


def test_conflicts_between_sources_are_kept_with_their_notes(published):
    supervised = [r for r in published if r.method == "Supervised" and r.task == "coco-maskrcnn-fpn"]
    assert {r.value for r in supervised if r.metric == "box_AP"} == {46.9, 47.9}
    assert all("disagree" in r.note for r in supervised if r.value is not None)
    main = [r for r in published if (r.task, r.method, r.pretrain_epochs) == ("imagenet-linear", "EMAE", 300)]
    assert main and all("68.4" in r.note for r in main)
    cae = [r for r in published if r.task == "ade20k-upernet-cae" and r.method == "CAE"]
    assert {r.value for r in cae} == {48.8, 49.7}


def test_every_row_is_typed_and_sourced(published):
    for row in published:
        assert row.source
        if row.value is not None:
            assert row.task in TASK_TITLES and row.protocol and row.data and row.method
            assert row.known_metric or "header lost" in row.metric
            assert not (row.metric in METRICS and METRICS[row.metric].unit == "%") or 0 <= row.value <= 100


def test_unknown_epochs_stay_empty_and_missing_values_stay_in_the_file(published):
    first_version = [r for r in published if r.source.startswith("EMAE v1") and r.task == "coco-vitdet"]
    assert first_version and all(r.pretrain_epochs is None for r in first_version)
    assert values(published, source_table="Table V") == {None}


def test_no_number_of_the_collection_is_lost(published, shared):
    """Every line of the collected table is here with the same value, epochs and architecture, and the same count."""
    with open(shared / "published.csv", newline="", encoding="utf-8") as file:
        collected = list(csv.DictReader(file))
    expected = Counter(
        (
            row["source_doc"],
            row["table"].replace("unnumbered in extraction", "unnumbered"),
            row["method"],
            row["arch"],
            row["framework"],
            float(row["pretrain_epochs"]) if row["pretrain_epochs"] else None,
            float(row["value"]) if row["value"] else None,
        )
        for row in collected
    )
    ours = Counter(
        (r.source, r.source_table, r.method_in_source, r.arch, r.protocol_in_source, r.pretrain_epochs, r.value)
        for r in published
    )
    assert len(collected) == 476
    assert expected - ours == Counter()


def rewrite(tmp_path, change):
    with open(PUBLISHED_CSV, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    change(rows)
    path = tmp_path / "published.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize(
    ("column", "text", "message"),
    [("value", "seventy", "line 3: value is 'seventy'"), ("value", "nan", "value"), ("task", "chess", "'chess'")],
)
def test_a_bad_cell_is_named(tmp_path, column, text, message):
    def change(rows):
        rows[2][rows[0].index(column)] = text

    with pytest.raises(DataError, match=message):
        load_published(rewrite(tmp_path, change))


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(DataError, match="columns are"):
        load_published(rewrite(tmp_path, lambda rows: [row.pop() for row in rows]))
