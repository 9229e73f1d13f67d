"""Costs as tables on the console."""

from rich.table import Table

from emae_mm.cost.estimate import Cost
from emae_mm.cost.memory import GIB
from emae_mm.cost.table1 import Row

GIGA, MILLION = 1e9, 1e6


def cost_table(cost: Cost) -> Table:
    """One config's cost: what, how much, how it comes about."""
    table = Table("", "", "value", "note", title=cost.config, title_justify="left")
    table.columns[2].justify = "right"
    for title, lines in (
        ("parameters", _parameters(cost)),
        ("tokens of an image", _tokens(cost)),
        ("FLOPs of an image", _flops(cost)),
        (f"memory of a process, batch {cost.schedule.batch}", _memory(cost)),
        ("training", _training(cost)),
    ):
        for index, (name, value, note) in enumerate(lines):
            table.add_row(title if not index else "", name, value, note)
        table.add_section()
    return table


Line = tuple[str, str, str]


def _parameters(cost: Cost) -> list[Line]:
    counted = cost.parameters
    parts = [("encoder", counted.encoder, ""), ("decoder", counted.decoder, "")]
    parts += [("other", counted.other, "heads, projectors, a teacher"), ("total", counted.total, "")]
    parts.append(("trainable", counted.trainable, "fixed positions are not"))
    return [(name, f"{value / MILLION:,.2f} M", note) for name, value, note in parts if value]


def _tokens(cost: Cost) -> list[Line]:
    tokens = cost.tokens
    lines = [("parts", str(tokens.parts), ""), ("encoder", str(tokens.encoder), "visible patches and class tokens")]
    return lines + ([("decoder", str(tokens.decoder), "and those to predict")] if tokens.decoder else [])


def _flops(cost: Cost) -> list[Line]:
    flops = cost.flops
    both = "forward + backward"
    parts = [
        ("forward", flops.forward, "matrix products and convolutions, 2 for each multiplication and addition"),
        ("backward", flops.backward, ""),
        ("recomputed", flops.recomputed, "activation checkpointing, parts_per_pass"),
        ("total", flops.total, ""),
        ("of it patch embedding", flops.patch_embedding, both),
        ("of it encoder", flops.encoder, both),
        ("of it decoder", flops.decoder, both),
        ("of it teacher", flops.teacher, "forward"),
        ("of it heads and losses", flops.rest, both),
    ]
    return [(name, f"{value / GIGA:,.2f} G", note) for name, value, note in parts if value]


def _memory(cost: Cost) -> list[Line]:
    memory = cost.memory
    several = cost.schedule.processes > 1
    parts = [
        ("parameters", memory.parameters, "and buffers"),
        ("gradients", memory.gradients, "twice: DDP's buckets" if several else ""),
        ("optimizer states", memory.optimizer, ""),
        ("activations", memory.activations, f"most at once, eager{', 16-bit autocast' if cost.half else ', float32'}"),
        ("total", memory.total, "estimated; the allocator and libraries take more"),
    ]
    return [(name, f"{value / GIB:,.2f} GiB", note) for name, value, note in parts]


def _training(cost: Cost) -> list[Line]:
    schedule, machine = cost.schedule, cost.machine
    batch = f"{schedule.processes} x {schedule.batch}"
    if schedule.accumulated > 1:
        batch += f" x {schedule.accumulated} accumulated"
    basis = "estimated from FLOPs" if not machine.images_per_second else "from a rate"
    return [
        ("images", f"{schedule.images:,}", "" if schedule.exact else "approximate: the papers do not say which"),
        ("batch", f"{schedule.global_batch:,}", f"{batch}, of one optimiser step"),
        ("epochs", f"{schedule.epochs:,.4g}", ""),
        ("steps of an epoch", f"{schedule.steps_per_epoch:,}", ""),
        ("steps", f"{schedule.steps:,}", ""),
        ("FLOPs", f"{cost.flops.total * schedule.images_seen:.3g}", "of the whole training"),
        ("hours", f"{cost.hours:,.1f}", f"{basis}, data loading left out: {machine.basis(cost.half)}"),
    ]


def table1_table(rows: list[Row]) -> Table:
    """Table I with counted FLOPs beside the published hours."""
    mae = rows[0]
    table = Table(title="EMAE Table I (ViT-L, ImageNet-1K): published hours, counted FLOPs", title_justify="left")
    for heading in (
        "method", "epochs", "hours (published)", "speed-up (published)", "FLOPs/iteration (published)",
        "GFLOPs/image (counted)", "FLOPs/iteration (counted)", "the encoder's", "speed-up by FLOPs (counted)",
        "hours/epoch over MAE's (published)", "PFLOP/s implied",
    ):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in rows:
        table.add_row(
            row.method,
            f"{row.epochs:g}",
            f"{row.hours:.2f}",
            f"{mae.hours / row.hours:.2f}",
            f"{row.relative_flops:g}",
            f"{row.flops / GIGA:.1f}",
            f"{row.flops / mae.flops:.2f}",
            f"{row.encoder / mae.encoder:.2f}",
            f"{mae.whole_run / row.whole_run:.2f}",
            f"{row.hours_per_epoch / mae.hours_per_epoch:.2f}",
            f"{row.pflops:.2f}",
        )
    return table
