"""Rows of the tables: seeds of one configuration, or sources of one published result, become one row."""

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from emae_mm.leaderboard.noise import Noise, larger, published_noise, sampling_noise, spread_noise
from emae_mm.leaderboard.published import PublishedResult
from emae_mm.leaderboard.records import FoundRecord

MEASURED = "measured"
PUBLISHED = "published"


@dataclass(frozen=True)
class Value:
    """Mean over ``n`` runs in the metric's unit; ``std`` is the sample standard deviation, None for a single run."""

    mean: float
    std: float | None = None
    n: int = 1


@dataclass(frozen=True)
class Row:
    """One line of a table. Rank, gap and mark are filled in when its block is ranked.

    ``gap`` is the distance to the best row of the block in the metric's unit, >= 0; ``mark`` says whether that gap is
    noise (see ``emae_mm.leaderboard.noise``). ``runs`` is empty for a published row.
    """

    kind: str
    method: str
    variant: str
    arch: str
    pretrain_data: str
    pretrain_epochs: float | None
    values: dict[str, Value]
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[FoundRecord, ...] = ()
    rank: int | None = None
    gap: float | None = None
    mark: str = ""

    @property
    def measured(self) -> bool:
        """Whether the row was measured by a run of this project."""
        return self.kind == MEASURED

    def noise(self, task: str, data: str, metric: str) -> Noise | None:
        """Standard error of the row's ``metric``, as far as it is known."""
        value = self.values[metric]
        floor = published_noise(task, data, self.arch, metric, value.n)
        if floor is None and self.runs:
            counts = [found.record.num_samples for found in self.runs if found.record.num_samples]
            unit = self.runs[0].record.metrics[metric].unit
            floor = sampling_noise(metric, unit, value.mean, min(counts, default=None))
        return larger(spread_noise(value.std, value.n), floor)


def measured_rows(records: Iterable[FoundRecord]) -> list[Row]:
    """One row for each configuration of one block, over its seeds.

    Records of one method, architecture and pre-training (data, epochs, recipe) are seeds of one configuration. The same
    seed of the same encoder and config counts once (the newest run); with another config it is another configuration
    and gets its own row, as nothing but the config can explain the difference.
    """
    groups: list[list[FoundRecord]] = []
    for found in sorted(records, key=lambda found: (found.record.created, str(found.path))):
        for group in groups:
            if _setting(found) != _setting(group[0]):
                continue
            twins = [other for other in group if _run(other) == _run(found)]
            if not twins:
                group.append(found)
                break
            if twins[0].record.config.sha256 == found.record.config.sha256:
                group[group.index(twins[0])] = found
                break
        else:
            groups.append([found])
    return [_measured_row(group) for group in groups]


def _setting(found: FoundRecord) -> tuple:
    record = found.record
    return record.method, record.arch, record.pretrain_data, record.pretrain_epochs, record.pretrain_protocol


def _run(found: FoundRecord) -> tuple:
    return found.record.seed, found.record.encoder.sha256 if found.record.encoder else None


def _measured_row(group: list[FoundRecord]) -> Row:
    record = group[0].record
    names = [name for name in record.metrics if all(name in found.record.metrics for found in group)]
    values = {}
    for name in names:
        numbers = [float(found.record.metrics[name].value) for found in group]
        std = statistics.stdev(numbers) if len(numbers) > 1 else None
        values[name] = Value(statistics.fmean(numbers), std, len(numbers))
    notes = [found.record.notes for found in group if found.record.notes]
    if record.pretrain_protocol:
        notes.append(f"pre-trained by {record.pretrain_protocol}")
    return Row(
        kind=MEASURED,
        method=record.method,
        variant="",
        arch=record.arch,
        pretrain_data=record.pretrain_data,
        pretrain_epochs=record.pretrain_epochs,
        values=values,
        notes=tuple(dict.fromkeys(notes)),
        runs=tuple(group),
    )


def published_rows(results: Iterable[PublishedResult]) -> list[Row]:
    """One row for each published result of one block.

    Equal values of one setting from several sources become one row that lists them all. Unequal ones stay apart and
    each says so. A version of a paper that leaves out the epochs joins the version that gives them where all numbers
    agree.
    """
    entries = _entries(result for result in results if result.value is not None)
    entries.sort(key=lambda entry: entry[0].pretrain_epochs is None)  # stable: those with epochs first
    merged: list[list[PublishedResult]] = []
    for entry in entries:
        home = next((other for other in merged if _same_result(other, entry)), None)
        if home is None:
            merged.append(list(entry))
        else:
            home.extend(entry)
    rows = [_published_row(entry) for entry in merged]
    return [_with_conflicts(row, rows) for row in rows]


def _published_setting(result: PublishedResult) -> tuple:
    return result.method, result.variant, result.arch, result.pretrain_data


def _entries(results: Iterable[PublishedResult]) -> list[list[PublishedResult]]:
    """The numbers of each line of each source's table."""
    entries: dict[tuple, list[list[PublishedResult]]] = {}
    for result in results:
        key = (result.source, result.source_table, result.pretrain_epochs, *_published_setting(result))
        lines = entries.setdefault(key, [[]])
        if any(result.metric == other.metric for other in lines[-1]):
            lines.append([])
        lines[-1].append(result)
    return [line for lines in entries.values() for line in lines]


def _same_result(known: list[PublishedResult], new: list[PublishedResult]) -> bool:
    first, other = known[0], new[0]
    if _published_setting(first) != _published_setting(other):
        return False
    same_paper = other.pretrain_epochs is None and _document(first.source) == _document(other.source)
    if first.pretrain_epochs != other.pretrain_epochs and not same_paper:
        return False
    values = {result.metric: result.value for result in known}
    common = [result for result in new if result.metric in values]
    return bool(common) and all(values[result.metric] == result.value for result in common)


def _document(source: str) -> str:
    """The source without its version, so that two versions of one paper are the same document."""
    arxiv = re.search(r"arXiv:(\d+\.\d+)", source)
    return arxiv.group(1) if arxiv else source


def _published_row(entry: list[PublishedResult]) -> Row:
    first = entry[0]
    sources = dict.fromkeys(f"{result.source}, {result.source_table}".rstrip(", ") for result in entry)
    notes = dict.fromkeys(result.note for result in entry if result.note and result.known_metric)
    return Row(
        kind=PUBLISHED,
        method=first.method,
        variant=first.variant,
        arch=first.arch,
        pretrain_data=first.pretrain_data,
        pretrain_epochs=first.pretrain_epochs,
        values={result.metric: Value(result.value) for result in entry},
        sources=tuple(sources),
        notes=tuple(notes),
    )


def _with_conflicts(row: Row, rows: list[Row]) -> Row:
    def setting(other: Row) -> tuple:
        return other.method, other.variant, other.arch, other.pretrain_data, other.pretrain_epochs

    disagreements = [
        f"sources disagree: {value.mean:g} here, {other.values[name].mean:g} in {'; '.join(other.sources)} ({name})"
        for other in rows
        if other is not row and setting(other) == setting(row)
        for name, value in row.values.items()
        if name in other.values and other.values[name].mean != value.mean
    ]
    return replace(row, notes=(*disagreements, *row.notes)) if disagreements else row
