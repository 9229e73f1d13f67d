"""From a suite's config to its stages."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emae_mm.errors import ConfigError
from emae_mm.leaderboard.paper_tables import PaperTableSpec
from emae_mm.paths import ENCODER_FILE, find_config


@dataclass(frozen=True)
class Suite:
    """A benchmark: every method is pre-trained once and transferred to every task.

    Attributes:
        name: shown to the user.
        pretrain: method name to ``dict(config=..., data=...)`` and, for a variant of that config, ``options=...``:
            dotted keys and their values. Records and tables call the method by that name.
        baselines: method name to a starting point that needs no pre-training: ``"random"``, a file, ``timm:NAME``.
        transfer: task name to ``dict(config=..., data=...)`` and, as above, ``options=...``.
        reconstruct: ``dict(data=..., images=..., masks=...)`` of the picture, or empty for none.
        tables: a paper's tables by number, see :class:`~emae_mm.leaderboard.PaperTableSpec`. With them, every (method,
            epochs, seed) that a table names is run, once however many tables name it.
        epoch_scale: epochs run for one that a table names; the products are whole numbers.
        note: shown under pictures and on the leaderboard page.
        embedded_data: make the embedded data set in the data root first.

    ``data`` is a folder relative to the suite's data root; ``config`` a path below ``configs/``.
    """

    name: str
    pretrain: dict[str, dict]
    transfer: dict[str, dict]
    baselines: dict[str, str] = field(default_factory=dict)
    reconstruct: dict = field(default_factory=dict)
    tables: dict[str, dict] = field(default_factory=dict)
    epoch_scale: float = 1.0
    note: str = ""
    embedded_data: bool = False

    def table_specs(self) -> list[PaperTableSpec]:
        """The declared tables.

        Raises:
            ConfigError: a table's key is unknown or missing, or a row names no method of ``pretrain``.
        """
        specs = [PaperTableSpec.from_dict(table) for table in self.tables.values()]
        named = {row.run for spec in specs for row in spec.rows}
        if unknown := sorted(named - set(self.pretrain)):
            raise ConfigError(f"suite {self.name}: tables name {unknown}", f"'pretrain' has {sorted(self.pretrain)}")
        if specs and (idle := sorted(set(self.pretrain) - named)):
            raise ConfigError(
                f"suite {self.name}: no table shows {idle}, so it would not be run", "add a row or remove it"
            )
        return specs


@dataclass(frozen=True)
class Stage:
    """One run of the suite.

    Attributes:
        title: shown to the user.
        kind: ``"data"`` (makes the embedded data set), ``"pretrain"``, ``"transfer"`` (trains, or only tests when its
            config has nothing to train), ``"reconstruct"``, ``"leaderboard"`` or ``"tables"``.
        config: the config file, or None.
        data_root: data folder handed to the config, or None.
        work_dir: where everything it makes is written.
        method: whose encoder it makes or transfers.
        pretrained: starting point of a transfer.
        options: overrides of the config, dotted keys and their values.
        seed: of everything random; None: the config's own.
        after: work directory of the pre-training that a transfer needs, or None.
    """

    title: str
    kind: str
    work_dir: Path
    config: Path | None = None
    data_root: Path | None = None
    method: str = ""
    pretrained: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    after: Path | None = None


@dataclass(frozen=True)
class _Cell:
    """One encoder of the suite: a method and, where tables say so, for how many epochs and from which seed."""

    method: str
    epochs: int | None = None
    seed: int | None = None

    @property
    def title(self) -> str:
        parts = [self.method]
        parts += [f"{self.epochs} epochs"] if self.epochs is not None else []
        parts += [f"seed {self.seed}"] if self.seed else []
        return ", ".join(parts)

    @property
    def folder(self) -> Path:
        parts = [_slug(self.method)]
        parts += [f"{self.epochs}-epochs"] if self.epochs is not None else []
        parts += [f"seed-{self.seed}"] if self.seed is not None else []
        return Path(*parts)


def load_suite(name: str | Path) -> Suite:
    """Read a suite's config by path or by its name below ``configs/suites/``.

    Raises:
        ConfigError: no such file, or an unknown or missing key.
    """
    from mmengine.config import Config

    text = str(name)
    path = find_config(text if Path(text).is_file() or text.startswith("suites/") else f"suites/{text}")
    content = Config.fromfile(path).to_dict()
    known = set(Suite.__dataclass_fields__)
    surplus = set(content) - known
    missing = {"name", "pretrain", "transfer"} - set(content)
    if surplus or missing:
        raise ConfigError(
            f"suite {path.name}: " + "; ".join(
                f"{kind} keys {sorted(keys)}" for kind, keys in (("unknown", surplus), ("missing", missing)) if keys
            ),
            f"the keys of a suite are {sorted(known)}",
        )  # fmt: skip
    return Suite(**content)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


def plan(suite: Suite, data_root: Path, out: Path) -> list[Stage]:
    """The suite's stages in order: pre-training, then every transfer of every encoder, then pictures and tables.

    Raises:
        ConfigError: a config file does not exist, a table is wrong, or two methods would share a folder.
        DataError: by the stages themselves, when their data is not there.
    """
    stages = [Stage("embedded data set", "data", data_root)] if suite.embedded_data else []
    cells = _cells(suite)
    stages += [_pretrain_stage(suite, cell, data_root, out) for cell in cells]
    for task, spec in suite.transfer.items():
        stages += [_transfer_stage(task, spec, cell, data_root, out) for cell in cells]
        stages += [
            _transfer_stage(task, spec, _Cell(method), data_root, out, source)
            for method, source in suite.baselines.items()
        ]
    if suite.reconstruct:
        folder = data_root / suite.reconstruct["data"]
        stages.append(Stage("reconstructions", "reconstruct", out / "reconstructions", data_root=folder))
    stages.append(Stage("leaderboard", "leaderboard", out / "leaderboard"))
    if suite.tables:
        stages.append(Stage("tables", "tables", out / "tables"))
    return stages


def _cells(suite: Suite) -> list[_Cell]:
    """The encoders to pre-train, each once; with tables the longest first, so that parallel jobs end together."""
    names = [*suite.pretrain, *suite.baselines]
    if len({_slug(name) for name in names}) < len(names):
        raise ConfigError(f"suite {suite.name}: two of {names} would share a folder", "use names of distinct letters")
    if not suite.tables:
        return [_Cell(method) for method in suite.pretrain]
    wanted = {
        _Cell(row.run, _epochs_run(suite, epochs), seed): None
        for spec in suite.table_specs()
        for row in spec.rows
        for epochs in spec.epochs
        for seed in range(spec.seeds)
    }
    return sorted(wanted, key=lambda cell: -cell.epochs)


def _epochs_run(suite: Suite, epochs: float) -> int:
    run = epochs * suite.epoch_scale
    if round(run) < 1 or abs(run - round(run)) > 1e-6:
        raise ConfigError(
            f"suite {suite.name}: {epochs:g} epochs times epoch_scale={suite.epoch_scale:g} are {run:g} epochs",
            "choose an epoch_scale that makes whole numbers",
        )
    return round(run)


def _pretrain_stage(suite: Suite, cell: _Cell, data_root: Path, out: Path) -> Stage:
    spec = suite.pretrain[cell.method]
    options = {**spec.get("options", {}), "record.method": cell.method}
    if cell.epochs is not None:
        options["train_cfg.max_epochs"] = cell.epochs
    return Stage(
        title=f"pre-train {cell.title}",
        kind="pretrain",
        work_dir=out / cell.folder / "pretrain",
        config=find_config(spec["config"]),
        data_root=data_root / spec["data"],
        method=cell.method,
        options=options,
        seed=cell.seed,
    )


def _transfer_stage(task: str, spec: dict, cell: _Cell, data_root: Path, out: Path, source: str = "") -> Stage:
    """A transfer of ``source``, or of the cell's own encoder."""
    trained = out / cell.folder / "pretrain"
    return Stage(
        title=f"{task}, {cell.title}",
        kind="transfer",
        work_dir=out / cell.folder / _slug(task),
        config=find_config(spec["config"]),
        data_root=data_root / spec["data"],
        method=cell.method,
        pretrained=source or str(trained / ENCODER_FILE),
        options=spec.get("options", {}),
        seed=cell.seed,
        after=None if source else trained,
    )
