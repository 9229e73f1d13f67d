"""Training steps of EMAE: ours against mmpretrain's MAE and transformers' ViTMAE, executed K times as the paper writes.

All compute the same losses from the same weights, images and patch orders (the script checks it), then back-propagate
and take an AdamW step; ours as this project trains (fused optimiser), theirs as they come. Steps are taken in turns in
one process; times are medians, ratios medians over the turns. Memory is what a step needs beyond what is resident
before it.

    python benchmarks/pretrain_step.py --out work_dirs/benchmarks
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from emae_mm.quiet import silence_known_noise

LR = 0.0  # AdamW does all its work, and every step finds the same weights: its losses can be compared
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Relative differences of losses: float32 sums in another order; bfloat16 keeps 8 bits."""


class Candidate:
    """One implementation in one mode: how to take a step, and what was measured.

    Args:
        name: of the implementation; ``ours`` is what the others are compared with.
        model: has ``losses(images, orders)``.
        mode: ``"eager"`` or ``"compiled"``.
        precision: ``"fp32"`` or ``"bf16"`` (autocast).
        fused: whether AdamW's fused form is used.
    """

    def __init__(self, name: str, model, mode: str, precision: str, fused: bool):
        import torch

        self.name, self.mode, self.precision, self.model = name, mode, precision, model
        self.losses: Callable = model.losses
        if mode == "compiled":
            self.losses = model.compiled() if hasattr(model, "compiled") else torch.compile(model.losses)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=LR, betas=(0.9, 0.95), **({"fused": True} if fused else {}))
        self.device = parameters[0].device
        self.seconds: list[float] = []
        self.until_optimizer: list[float] = []
        self.values: dict[str, float] = {}
        self.memory_mb = float("nan")

    def step(self, images, orders, keep: bool = True) -> None:
        import torch

        started = self._now()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            losses = {name: value for name, value in self.losses(images, orders).items() if "loss" in name}
        sum(losses.values()).backward()
        before_optimizer = self._now()
        self.optimizer.step()
        if keep:
            self.seconds.append(self._now() - started)
            self.until_optimizer.append(before_optimizer - started)
        self.values = {name: float(value.detach()) for name, value in losses.items()}

    def measure_memory(self, images, orders) -> None:
        """A step's peak beyond what is there before it, in MiB."""
        from measuring import step_memory_mb

        self.optimizer.zero_grad()
        self.memory_mb = step_memory_mb(lambda: self.step(images, orders, keep=False), self.device)

    def _now(self) -> float:
        from measuring import now

        return now(self.device)


def build(arch: str, parts: int, precision: str, modes: list[str], variants: bool, device: str) -> list[Candidate]:
    """Our model and its peers with the same weights; compiled and eager candidates share one model."""
    from pretrain_peers import PEERS

    from emae_mm.models.algorithms import EMAE

    backbone = dict(arch=arch, img_size=224, patch_size=16)
    ours = EMAE(backbone=backbone, num_parts=parts).to(device)
    models = {"ours": ours}
    for name, peer in PEERS.items():
        models[name] = peer(arch, parts)
        models[name].take_weights(ours.cpu())
        models[name].to(device)
    ours.to(device)
    found = [
        Candidate(name, model, mode, precision, fused=name == "ours")
        for mode in modes
        for name, model in models.items()
    ]
    if variants:
        for name, option in (
            ("ours, 1 part at once", {"parts_per_pass": 1}),
            ("ours, half predicted", {"predicted_share": 0.5}),
            ("ours, quarter predicted", {"predicted_share": 0.25}),
        ):
            variant = EMAE(backbone=backbone, num_parts=parts, **option).to(device)
            variant.load_state_dict(ours.state_dict())
            found.append(Candidate(name, variant, "eager", precision, fused=True))
    return found


def check_equal(candidates: list[Candidate], precision: str) -> float:
    """Largest relative difference of a loss from ours; an error where the mathematics cannot be the same."""
    reference = candidates[0].values
    same = [c for c in candidates if "predicted" not in c.name]
    gap = max(abs(c.values[key] - value) / abs(value) for c in same for key, value in reference.items())
    if not gap <= TOLERANCE[precision]:
        raise SystemExit(f"losses differ by {gap:.1e}: { {f'{c.name} {c.mode}': c.values for c in same} }")
    return gap


def consistency_share(candidate: Candidate, parts: int, batch: int, steps: int) -> float:
    """The consistency loss's forward and backward time over the whole step's."""
    import torch

    from emae_mm.models.losses import runs_consistency_loss

    patches = candidate.model.backbone.num_patches
    dtype = torch.bfloat16 if candidate.precision == "bf16" else torch.float32
    predictions = torch.randn(batch, parts, patches // parts * (parts - 1), 768, dtype=dtype, device=candidate.device)
    loss = torch.compile(runs_consistency_loss) if candidate.mode == "compiled" else runs_consistency_loss
    seconds = []
    for _ in range(steps + 1):
        values = predictions.clone().requires_grad_()
        started = candidate._now()
        loss(values).backward()
        seconds.append(candidate._now() - started)
    return statistics.median(seconds[1:]) / statistics.median(candidate.seconds)


def gflops_per_image(arch: str, parts: int) -> dict[str, float]:
    """Forward and backward, by torch's counter on the meta device."""
    import torch
    from pretrain_peers import PEERS
    from torch.utils.flop_counter import FlopCounterMode

    from emae_mm.models.algorithms import EMAE

    def count(model) -> float:
        model = model.to("meta")
        images, orders = torch.empty(1, 3, 224, 224, device="meta"), torch.empty(1, 1, 196, device="meta").argsort(-1)
        with FlopCounterMode(display=False) as counter:
            sum(value for name, value in model.losses(images, orders).items() if "loss" in name).backward()
        return counter.get_total_flops() / 1e9

    counted = {"ours": count(EMAE(backbone=dict(arch=arch, img_size=224, patch_size=16), num_parts=parts))}
    return counted | {name: count(peer(arch, parts)) for name, peer in PEERS.items()}


def measure_cell(arch, parts, precision, modes, batch, steps, variants, device) -> list[dict]:
    """All candidates of one cell of the table, in turns."""
    import torch
    from measuring import matrix_peak, median_ratio

    torch.manual_seed(0)
    candidates = build(arch, parts, precision, modes, variants, device)
    ours = candidates[0]
    images = torch.randn(batch, 3, 224, 224, device=device)
    orders = ours.model.draw(images)
    for candidate in candidates:
        candidate.step(images, orders, keep=False)  # compiles, and fills caches
    gap = check_equal(candidates, precision)
    for candidate in candidates:
        candidate.measure_memory(images, orders)
    for _ in range(steps):
        for candidate in candidates:
            candidate.step(images, orders)
    counted, peak = gflops_per_image(arch, parts), matrix_peak(device, precision)

    def ratios(candidate: Candidate, times: str) -> dict[str, float]:
        others = [c for c in candidates if c.name in ("mmpretrain", "transformers")] if candidate.name == "ours" else []
        return {
            f"{other.name} {other.mode}": median_ratio(getattr(other, times), getattr(candidate, times))
            for other in others
        }

    rows = []
    for candidate in candidates:
        seconds = statistics.median(candidate.seconds)
        gflops = counted.get(candidate.name)
        rows.append(
            dict(
                arch=arch, parts=parts, precision=precision, batch=batch, name=candidate.name, mode=candidate.mode,
                step_s=seconds, optimizer_s=seconds - statistics.median(candidate.until_optimizer),
                all_steps_s=candidate.seconds, images_per_s=batch / seconds, memory_mb=candidate.memory_mb,
                gflops_per_image=gflops, share_of_peak=gflops and gflops * batch / seconds / peak,
                matrix_peak_gflops_per_s=peak, losses=candidate.values, largest_loss_gap=gap,
                consistency_share=consistency_share(candidate, parts, batch, steps)
                if candidate.name == "ours" else None,
                faster_than=ratios(candidate, "seconds"),
                faster_without_optimizer=ratios(candidate, "until_optimizer"),
            )
        )  # fmt: skip
    return rows


def print_rows(rows: list[dict], console: Console) -> None:
    first = rows[0]
    table = Table(title=f"ViT {first['arch']}, K={first['parts']}, {first['precision']}, batch {first['batch']}")
    for title in (
        "",
        "s/step",
        "images/s",
        "MiB",
        "GFLOP/image",
        "of peak",
        "consistency",
        "times faster than (without optimizer)",
    ):
        table.add_column(
            title, justify="right" if title not in ("", "times faster than (without optimizer)") else "left"
        )
    for row in rows:
        table.add_row(
            f"{row['name']}, {row['mode']}",
            f"{row['step_s']:.3f}",
            f"{row['images_per_s']:.2f}",
            f"{row['memory_mb']:.0f}",
            f"{row['gflops_per_image']:.0f}" if row["gflops_per_image"] else "",
            f"{100 * row['share_of_peak']:.0f} %" if row["share_of_peak"] else "",
            f"{100 * row['consistency_share']:.1f} %" if row["consistency_share"] is not None else "",
            ", ".join(
                f"{name} {value:.2f} ({row['faster_without_optimizer'][name]:.2f})"
                for name, value in row["faster_than"].items()
            ),
        )
    console.print(table)


def main(
    arch: Annotated[list[str], typer.Option(help="small, base or large; may be repeated.")] = ["small", "base"],  # noqa: B006
    parts: Annotated[list[int], typer.Option(help="K; may be repeated.")] = [4, 7, 14],  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="fp32, bf16; may be repeated.")] = ["fp32", "bf16"],  # noqa: B006
    mode: Annotated[list[str], typer.Option(help="eager, compiled; may be repeated.")] = ["eager", "compiled"],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Images a step.")] = 4,
    steps: Annotated[int, typer.Option(help="Timed turns.")] = 7,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    variants: Annotated[bool, typer.Option(help="Also the low-memory form and the departures from the paper.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for pretrain_step.json.")] = None,
) -> None:
    """Measure training steps."""
    silence_known_noise()
    import torch
    from measuring import Report

    import emae_mm.registry  # noqa: F401

    report, console = Report(threads, steps, out and out / "pretrain_step.json"), Console(width=170)
    console.print(report.hardware)
    for one_arch in arch:
        for one_precision in precision:
            for one_parts in parts:
                torch._dynamo.reset()
                rows = measure_cell(one_arch, one_parts, one_precision, mode, batch, steps, variants, report.device)
                print_rows(rows, console)
                report.add(rows)


if __name__ == "__main__":
    typer.run(main)
