"""A paper's tables with measured results beside the published ones: rows are variants, columns are epochs.

A table is declared (:class:`PaperTableSpec`), its measured cells come from records and nothing else, its published ones
from ``published.csv``. A cell nobody measured stays empty.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace

from emae_mm.errors import ConfigError
from emae_mm.leaderboard.metrics import MetricInfo, info
from emae_mm.leaderboard.noise import sampling_noise
from emae_mm.leaderboard.published import PublishedResult
from emae_mm.leaderboard.records import FoundRecord
from emae_mm.leaderboard.rows import Row, Value, measured_rows
from emae_mm.leaderboard.schema import RecordError


@dataclass(frozen=True)
class PaperRowSpec:
    """One row of a table.

    Attributes:
        label: shown.
        run: the measured records' ``method``.
        published: columns of ``published.csv`` and their values that single the row out, beside the table's.
    """

    label: str
    run: str
    published: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTableSpec:
    """What a table shows.

    Attributes:
        title: shown above it.
        rows: dicts of :class:`PaperRowSpec`'s fields.
        epochs: pre-training epochs as published, one pair of columns (measured, published) each.
        published: columns of ``published.csv`` and their values that all rows share.
        task: the measured records' task.
        metric: shown; the same for measured and published cells.
        seeds: seeds a suite runs each cell with.
        pretrain_metrics: metrics of the pre-training's own records, shown in columns of their own.
        note: shown below the table.
    """

    title: str
    rows: tuple[PaperRowSpec, ...]
    epochs: tuple[float, ...]
    published: dict[str, str]
    task: str = "imagenet-linear"
    metric: str = "top1"
    seeds: int = 1
    pretrain_metrics: tuple[str, ...] = ()
    note: str = ""

    @classmethod
    def from_dict(cls, values: Mapping) -> "PaperTableSpec":
        """A table from its part of a suite's config.

        Raises:
            ConfigError: a key is unknown or missing, or an unknown column of ``published.csv`` is named.
        """
        spec = _from_dict(cls, values, f"table {values.get('title', '')!r}")
        rows = tuple(_from_dict(PaperRowSpec, row, f"table {spec.title!r}, a row") for row in spec.rows)
        for name in {name for part in (spec, *rows) for name in part.published}:
            if name not in PublishedResult.__dataclass_fields__:
                raise ConfigError(
                    f"table {spec.title!r}: published.csv has no column {name!r}",
                    f"its columns are {list(PublishedResult.__dataclass_fields__)}",
                )
        return replace(spec, rows=rows, epochs=tuple(spec.epochs), pretrain_metrics=tuple(spec.pretrain_metrics))


def _from_dict(kind, values: Mapping, where: str):
    known = {item.name for item in fields(kind)}
    if surplus := set(values) - known:
        raise ConfigError(f"{where}: unknown keys {sorted(surplus)}", f"the keys are {sorted(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}", f"the keys are {sorted(known)}") from error


@dataclass(frozen=True)
class Cell:
    """One variant at one number of epochs.

    Attributes:
        epochs: as published.
        measured: mean, sample standard deviation and number of seeds, or None where no record is.
        published: the paper's number, or None where it gives none.
        runs: the records the mean is taken over.
        pretrain: metrics of the pre-training's records, those there are.
    """

    epochs: float
    measured: Value | None
    published: PublishedResult | None
    runs: tuple[FoundRecord, ...] = ()
    pretrain: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperTable:
    """A declared table with its cells: ``cells[row][column]`` in the order of ``spec.rows`` and ``spec.epochs``.

    ``epoch_scale`` is the number of epochs run for each published one.
    """

    spec: PaperTableSpec
    cells: tuple[tuple[Cell, ...], ...]
    epoch_scale: float = 1.0

    @property
    def metric(self) -> MetricInfo:
        """Name, unit and decimals of what the cells show."""
        return info(self.spec.metric)

    @property
    def runs(self) -> list[FoundRecord]:
        """All records that the cells show."""
        return [found for row in self.cells for cell in row for found in cell.runs]

    @property
    def missing(self) -> int:
        """How many cells nobody measured."""
        return sum(cell.measured is None for row in self.cells for cell in row)

    def notes(self) -> list[str]:
        """What measured and published numbers are, and how far the measured ones can be trusted."""
        records = [found.record for found in self.runs]
        settings = sorted({f"{r.protocol} on {r.data}, {r.arch}" for r in records})
        measured = f"Measured: {'; '.join(settings) or 'nothing yet'}; mean ± standard deviation (number of seeds)"
        if self.missing:
            measured += f"; {self.missing} cells not measured"
        notes = [f"{measured}."]
        errors = [
            noise.error
            for r in records
            if (noise := sampling_noise(self.spec.metric, self.metric.unit, _value(r, self.spec.metric), r.num_samples))
        ]
        if errors:
            notes.append(f"Sampling error of the evaluated images: up to ±{max(errors):.1f} for each run.")
        if self.epoch_scale != 1:
            notes.append(f"{1 / self.epoch_scale:g} published epochs are one epoch here.")
        sources = dict.fromkeys(
            f"{cell.published.source}, {cell.published.source_table} ({cell.published.data}, {cell.published.arch})"
            for row in self.cells
            for cell in row
            if cell.published
        )
        return [*notes, f"Published: {'; '.join(sources)}.", *filter(None, [self.spec.note])]


def _value(record, metric: str) -> float:
    return float(record.metrics[metric].value)


def build_paper_tables(
    specs: Iterable[PaperTableSpec],
    records: Iterable[FoundRecord],
    published: Iterable[PublishedResult],
    epoch_scale: float = 1.0,
) -> list[PaperTable]:
    """Fill declared tables.

    Args:
        specs: the tables.
        records: measured results, of transfers and of pre-trainings.
        published: all published results.
        epoch_scale: epochs run for one published epoch.

    Raises:
        ConfigError: a row names no published result, or several where there must be one.
        RecordError: records of one cell were made with different settings, so that a mean would say nothing.
    """
    records, published = list(records), list(published)
    tables = []
    for spec in specs:
        rows = tuple(
            tuple(_cell(spec, row, epochs, records, published, epoch_scale) for epochs in spec.epochs)
            for row in spec.rows
        )
        for row, cells in zip(spec.rows, rows, strict=True):
            if not any(cell.published for cell in cells):
                raise ConfigError(
                    f"table {spec.title!r}: no published result for {row.label!r}, {spec.published | row.published}",
                    "name the row as published.csv does",
                )
        tables.append(PaperTable(spec, rows, epoch_scale))
    return tables


def _cell(spec, row, epochs: float, records, published, epoch_scale: float) -> Cell:
    def of_this_cell(task: str) -> Row | None:
        wanted = (task, row.run, round(epochs * epoch_scale, 6))
        found = [f for f in records if (f.record.task, f.record.method, f.record.pretrain_epochs) == wanted]
        rows = measured_rows(found)
        if len(rows) > 1 or len({(f.record.protocol, f.record.data) for f in found}) > 1:
            raise RecordError(
                f"table {spec.title!r}: records of {row.run}, {epochs:g} epochs, were made with different settings: "
                + ", ".join(str(f.path) for f in found),
                "give the records of one suite only",
            )
        return rows[0] if rows else None

    transferred, trained = of_this_cell(spec.task), of_this_cell("pretrain")
    values = transferred.values if transferred else {}
    return Cell(
        epochs=epochs,
        measured=values.get(spec.metric),
        published=_published(spec, row, epochs, published),
        runs=transferred.runs if spec.metric in values else (),
        pretrain={n: trained.values[n] for n in spec.pretrain_metrics if trained and n in trained.values},
    )


def _published(spec, row, epochs: float, published) -> PublishedResult | None:
    wanted = {"metric": spec.metric, "pretrain_epochs": epochs} | spec.published | row.published
    found = [p for p in published if p.value is not None and all(getattr(p, k) == v for k, v in wanted.items())]
    if len(found) > 1:
        raise ConfigError(
            f"table {spec.title!r}, row {row.label!r}: {len(found)} published results match {wanted}",
            "name more columns of published.csv, so that one is left",
        )
    return found[0] if found else None
