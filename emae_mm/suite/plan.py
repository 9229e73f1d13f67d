"""From a suite's config to its stages."""

from dataclasses import dataclass, field
from pathlib import Path

from emae_mm.errors import ConfigError
from emae_mm.paths import ENCODER_FILE, find_config


@dataclass(frozen=True)
class Suite:
    """A benchmark: every method is pre-trained once and transferred to every task.

    Attributes:
        name: shown to the user.
        pretrain: method name to ``dict(config=..., data=...)``.
        baselines: method name to a starting point that needs no pre-training: ``"random"``, a file, ``timm:NAME``.
        transfer: task name to ``dict(config=..., data=...)``.
        reconstruct: ``dict(data=..., images=..., masks=...)`` of the picture, or empty for none.
        note: shown under pictures and on the leaderboard page.
        embedded_data: make the embedded data set in the data root first.

    ``data`` is a folder relative to the suite's data root; ``config`` a path below ``configs/``.
    """

    name: str
    pretrain: dict[str, dict]
    transfer: dict[str, dict]
    baselines: dict[str, str] = field(default_factory=dict)
    reconstruct: dict = field(default_factory=dict)
    note: str = ""
    embedded_data: bool = False


@dataclass(frozen=True)
class Stage:
    """One run of the suite.

    Attributes:
        title: shown to the user.
        kind: ``"data"`` (makes the embedded data set), ``"pretrain"``, ``"transfer"`` (trains, or only tests when its
            config has nothing to train), ``"reconstruct"`` or ``"leaderboard"``.
        config: the config file, or None.
        data_root: data folder handed to the config, or None.
        work_dir: where everything it makes is written.
        method: whose encoder it makes or transfers.
        pretrained: starting point of a transfer.
    """

    title: str
    kind: str
    work_dir: Path
    config: Path | None = None
    data_root: Path | None = None
    method: str = ""
    pretrained: str = ""


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
    """The suite's stages in order: pre-training, then every transfer of every method, then pictures and leaderboard.

    Raises:
        ConfigError: a config file does not exist.
        DataError: by the stages themselves, when their data is not there.
    """
    stages = [Stage("embedded data set", "data", data_root)] if suite.embedded_data else []
    stages += [
        Stage(
            title=f"pre-train {method}",
            kind="pretrain",
            work_dir=out / _slug(method) / "pretrain",
            config=find_config(spec["config"]),
            data_root=data_root / spec["data"],
            method=method,
        )
        for method, spec in suite.pretrain.items()
    ]
    trained = {stage.method: str(stage.work_dir / ENCODER_FILE) for stage in stages if stage.kind == "pretrain"}
    sources = trained | dict(suite.baselines)
    for task, spec in suite.transfer.items():
        stages += [
            Stage(
                title=f"{task}, {method}",
                kind="transfer",
                work_dir=out / _slug(method) / _slug(task),
                config=find_config(spec["config"]),
                data_root=data_root / spec["data"],
                method=method,
                pretrained=source,
            )
            for method, source in sources.items()
        ]
    if suite.reconstruct:
        folder = data_root / suite.reconstruct["data"]
        stages.append(Stage("reconstructions", "reconstruct", out / "reconstructions", data_root=folder))
    stages.append(Stage("leaderboard", "leaderboard", out / "leaderboard"))
    return stages
