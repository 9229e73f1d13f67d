"""Writes the protocols' tables into docs/protocols.md: ``python tests/protocol_docs.py`` from the checkout's root."""

from pathlib import Path

from protocol_tables import TASKS, read_table, table_names

from emae_mm.leaderboard import load_published

PAGE = Path(__file__).parents[1] / "docs" / "protocols.md"
BEGIN, END = "<!-- table of {}: written by tests/protocol_docs.py -->\n", "<!-- end of table -->\n"
SIZES = {384: "S", 768: "B", 1024: "L"}
TRAINED = ("Config", "ViT", "Protocol", "Batch", "Length", "Learning rate", "Schedule", "Weight decay", "Layer decay",
           "Drop path", "Published", "Source")  # fmt: skip
TESTED = ("Config", "ViT", "Protocol", "Source")
METHODS = ("EMAE", "MAE", "RC-MAE", "CAE")


def number(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-")


def length(training: dict) -> str:
    return f"{training['epochs']} epochs" if "epochs" in training else f"{training['iterations']:,} steps"


def schedule(table: dict) -> str:
    """Warm-up and shape of the schedule in words."""
    section, unit = table["schedule"], "epochs" if "epochs" in table["training"] else "steps"
    if section["shape"] == "steps":
        at = " and ".join(f"{milestone:,}" for milestone in section["milestones"])
        shape = f"x {number(section['gamma'])} at {at}"
    else:
        shape = f"{section['shape']} to {number(section['final'] * table['training']['lr'])}"
    return f"warm-up {section['warmup']:,} {unit}, {shape}"


def drop_path(table: dict) -> str:
    """The last block's rate of stochastic depth; none stated is none there."""
    return number(max((value for key, value in table["model"].items() if key.endswith("drop_prob")), default=0.0))


def published(record: dict, size: str) -> str:
    """What the leaderboard's methods publish for a protocol, as in the leaderboard: its first metric."""
    found = [
        (row.method, row.pretrain_epochs or 0, row.value)
        for row in load_published()
        if (row.task, row.protocol, row.arch) == (record["task"], record["protocol"], f"ViT-{size}")
        and (row.metric, row.pretrain_data, row.variant) == (record["metric"], "ImageNet-1K", "")
        and row.method in METHODS
        and row.value is not None
    ]
    cells = [
        f"{method}{f'-{epochs:g}' if epochs else ''} {max(f'{value:.1f}', f'{value:g}', key=len)}"
        for method, epochs, value in sorted(set(found))
    ]
    return ", ".join(cells) or "-"


def row(config: str, table: dict) -> tuple[str, ...]:
    training = table.get("training")
    name = f"[`{Path(config).stem}`](../configs/{config})"
    size = SIZES[table["model"]["backbone.embed_dim"]]
    start = (name, size, f"`{table['record']['protocol']}`")
    if not training:
        return (*start, table["config"]["source"])
    return (
        *start, f"{training['batch']:,}", length(training), f"{number(training['lr'])} ({training['optimizer']})",
        schedule(table), number(training["weight_decay"]), number(table["groups"]["layer_decay"]), drop_path(table),
        published(table["record"], size), training["source"],
    )  # fmt: skip


def markdown(task: str) -> str:
    """The tables of one task: of the configs that train, and of those that only test."""
    tables = [read_table(name) for name in table_names() if name.startswith(task)]
    rows = [row(config, table) for table in tables for config in table["configs"]]
    parts = []
    for heads in (TRAINED, TESTED):
        chosen = sorted(r for r in rows if len(r) == len(heads))
        if chosen:
            lines = [heads, ["---"] * len(heads), *chosen]
            parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n")
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: the place of a task's table is missing.
    """
    for task in TASKS:
        before, begin, rest = page.partition(BEGIN.format(task))
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f"docs/protocols.md has no place for the table of {task}: {BEGIN.format(task)!r}")
        page = before + begin + "\n" + markdown(task) + "\n" + end + after
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
