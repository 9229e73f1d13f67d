"""Tables: one for each task, in blocks of one protocol and data set; only rows of one block are ranked together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from emae_mm.leaderboard.metrics import METRICS, TASK_TITLES, MetricInfo, in_order, info
from emae_mm.leaderboard.noise import judge_gap
from emae_mm.leaderboard.published import UNRANKED_PROTOCOL, PublishedResult
from emae_mm.leaderboard.records import FoundRecord
from emae_mm.leaderboard.rows import Row, measured_rows, published_rows
from emae_mm.leaderboard.schema import DEMO_DATA, QUICK_PREFIX, RecordError

DEMO_LABEL = "demonstration data, not a benchmark"


@dataclass(frozen=True)
class Block:
    """Rows of one (task, protocol, data).

    ``metrics`` are the shown metrics by name, the ranking one first. ``ranked`` is False where a ranking would compare
    what is not comparable: recipes that differ between sources, losses of different pre-training methods, quick runs.
    """

    task: str
    protocol: str
    data: str
    metrics: dict[str, MetricInfo]
    rows: tuple[Row, ...]
    ranked: bool

    @property
    def primary(self) -> str:
        """Name of the metric that ranks."""
        return next(iter(self.metrics))

    @property
    def measured(self) -> list[Row]:
        """The measured rows, in their order."""
        return [row for row in self.rows if row.measured]

    @property
    def demo(self) -> bool:
        """Whether the embedded demonstration data are meant, whose results are no benchmark."""
        return self.data == DEMO_DATA

    @property
    def title(self) -> str:
        """Protocol and data, with the demonstration label where it belongs."""
        label = f" ({DEMO_LABEL})" if self.demo else ""
        return f"{self.protocol} on {self.data}{label}"


@dataclass(frozen=True)
class Table:
    """The blocks of one task, those with measured rows first."""

    task: str
    title: str
    blocks: tuple[Block, ...]

    @property
    def has_measured(self) -> bool:
        """Whether any of its rows was measured."""
        return any(block.measured for block in self.blocks)


def build(records: Iterable[FoundRecord], published: Iterable[PublishedResult]) -> list[Table]:
    """Merge measured and published results into tables; those with measured rows come first.

    Raises:
        RecordError: records of one block disagree on a metric's unit or direction or on the ranking metric.
    """
    measured_by: dict[tuple, list[FoundRecord]] = {}
    for found in records:
        record = found.record
        measured_by.setdefault((record.task, record.protocol, record.data), []).append(found)
    published_by: dict[tuple, list[PublishedResult]] = {}
    for result in published:
        if result.value is not None:
            published_by.setdefault((result.task, result.protocol, result.data), []).append(result)
    tables = []
    for task, title in TASK_TITLES.items():
        keys = sorted(key for key in {*measured_by, *published_by} if key[0] == task)
        blocks = [_block(key, measured_by.get(key, []), published_by.get(key, [])) for key in keys]
        blocks.sort(key=lambda block: (not block.measured, block.protocol == UNRANKED_PROTOCOL, -len(block.rows)))
        if blocks:
            tables.append(Table(task, title, tuple(blocks)))
    return sorted(tables, key=lambda table: not table.has_measured)


def _block(key: tuple[str, str, str], records: list[FoundRecord], published: list[PublishedResult]) -> Block:
    task, protocol, data = key
    rows = measured_rows(records) + published_rows(published)
    known = {result.metric for result in published if result.known_metric}
    metrics = {name: info(name) for name in in_order(known)} | _measured_metrics(records)
    primary = _primary(records) or in_order(known)[0]
    ordered = [primary, *(name for name in in_order(set(metrics)) if name != primary)]
    ranked = protocol != UNRANKED_PROTOCOL and task != "pretrain" and not protocol.startswith(QUICK_PREFIX)
    block = Block(task, protocol, data, {name: metrics[name] for name in ordered}, tuple(rows), ranked)
    return replace(block, rows=tuple(_rank(block) if ranked else _list(rows)))


def _measured_metrics(records: list[FoundRecord]) -> dict[str, MetricInfo]:
    metrics: dict[str, MetricInfo] = {}
    for found in records:
        for name, metric in found.record.metrics.items():
            known = metrics.get(name) or (info(name) if name in METRICS else None)
            here = (metric.unit, metric.higher_is_better)
            if known is not None and here != (known.unit, known.higher_is_better):
                raise RecordError(
                    f"{found.path}: metric {name} has unit {metric.unit!r} and higher_is_better="
                    f"{metric.higher_is_better}, its table has {known.unit!r} and {known.higher_is_better}",
                    "write the metric in the table's unit, or under another name",
                )
            metrics[name] = known or replace(info(name), unit=metric.unit, higher_is_better=metric.higher_is_better)
    return metrics


def _primary(records: list[FoundRecord]) -> str | None:
    for found in records[1:]:
        if found.record.primary != records[0].record.primary:
            raise RecordError(
                f"{found.path}: ranks by {found.record.primary}, {records[0].path} by {records[0].record.primary}",
                "runs of one protocol on one data set must name the same primary metric",
            )
    return records[0].record.primary if records else None


def _list(rows: list[Row]) -> list[Row]:
    """Unranked rows: measured first, then by name."""
    return sorted(rows, key=lambda row: (not row.measured, row.method, row.variant, row.arch, row.pretrain_epochs or 0))


def _rank(block: Block) -> list[Row]:
    """Rows from best to worst, equal values with equal rank, each with its gap to the best; the rest stay below."""
    name = block.primary
    sign = -1 if block.metrics[name].higher_is_better else 1
    scored = [row for row in block.rows if name in row.values]
    scored.sort(key=lambda row: (sign * row.values[name].mean, not row.measured))
    result = []
    for position, row in enumerate(scored):
        best, value = scored[0], row.values[name].mean
        tied = position and value == result[-1].values[name].mean
        gap = abs(value - best.values[name].mean)
        noises = (each.noise(block.task, block.data, name) for each in (best, row))
        mark = judge_gap(gap, *noises) if position else ""
        result.append(replace(row, rank=result[-1].rank if tied else position + 1, gap=gap, mark=mark))
    return result + _list([row for row in block.rows if name not in row.values])
