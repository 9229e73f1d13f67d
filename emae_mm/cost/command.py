"""``emae-mm cost``: count, print, write."""

import json
import logging
from pathlib import Path

from rich.console import Console

from emae_mm.cost.machine import Machine
from emae_mm.engine.command import parse_options
from emae_mm.errors import ConfigError
from emae_mm.fileio import write_text
from emae_mm.quiet import silence_known_noise


def cost_command(
    config: str | None,
    machine: Machine,
    images: int | None = None,
    options: list[str] | None = None,
    table1: bool = False,
    json_file: Path | None = None,
    console: Console | None = None,
) -> None:
    """Print what a config's training costs, or the paper's Table I, and write it as JSON where asked to.

    Args:
        config: file, or name below ``configs/``; None with ``table1``.
        machine: what the training is to run on.
        images: of the training set, where the config's is not a standard one.
        options: overrides of the config, ``key=value`` each.
        table1: the paper's Table I in place of a config.
        json_file: gets the numbers.
        console: prints; a new one where None.

    Raises:
        ConfigError: neither or both of config and table, or what :func:`~emae_mm.cost.estimate_cost` raises.
    """
    if (config is None) != table1:
        raise ConfigError("give either a config or --table1", "emae-mm cost CONFIG, or emae-mm cost --table1")
    silence_known_noise()
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().setLevel(logging.WARNING)
    console = console or Console()
    numbers = _print_table1(console) if table1 else _print_cost(config, machine, images, options or [], console)
    if json_file is not None:
        write_text(json_file, json.dumps(numbers, indent=2) + "\n")


def _print_cost(config: str, machine: Machine, images: int | None, options: list[str], console: Console) -> dict:
    from emae_mm.cost.estimate import estimate_cost
    from emae_mm.cost.text import cost_table

    cost = estimate_cost(config, machine, images, parse_options(options))
    console.print(cost_table(cost))
    return cost.as_dict()


def _print_table1(console: Console) -> dict:
    from emae_mm.cost.table1 import explanation, table1
    from emae_mm.cost.text import table1_table

    rows = table1()
    text = explanation(rows)
    console.print(table1_table(rows))
    console.print(text, highlight=False)
    return dict(rows=[row.as_dict() for row in rows], explanation=text)
