"""Training steps of dense transfers: our ViTDet and our UperNet beside what other projects compute.

- ``vitdet``: Mask R-CNN of ViTDet, ViT-B, against the same model whose attention pads tokens before it projects them
  and makes every matrix, as detectron2's and mmdetection's do; and against one that is theirs in the rest, too: torch's
  linear layers, channel norms written out, torchvision's RoIAlign, AdamW as it comes.
- ``upernet``: UperNet, ViT-B, in MAE's settings, against mmsegmentation's own model with AdamW as it comes.
- ``encoder``: ViTDet's encoder alone, also against one without windows, positions and padding.

All have the same weights, images and random numbers (the script checks that their losses are equal) and take AdamW
steps, fused as in every training of this project where nothing else is said, in turns in one process; without random
depth and dropout, which libraries draw in different orders. Times are medians, ratios medians over the turns. Memory is
what a step needs beyond what is resident before it.

    python benchmarks/transfer_step.py --out work_dirs/benchmarks
"""

import copy
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from emae_mm.quiet import silence_known_noise

CONFIGS = Path(__file__).parents[1] / "configs"
VITDET = CONFIGS / "detection/vitdet_mask-rcnn_vit-base_8xb8-lsj-100e_coco.py"
UPERNET = CONFIGS / "segmentation/upernet_vit-base_8xb2-160k_ade20k-512x512.py"
OBJECTS = 12
"""In each image; COCO has 7 on average."""
TOLERANCE = {"fp32": 1e-2, "bf16": 1e-1}
"""Relative differences of losses: proposals are sorted and sampled, so that rounding may exchange a few."""


@dataclass
class Candidate:
    """One implementation: what it computes, its optimiser, and what was measured."""

    name: str
    model: object
    loss: Callable
    precision: str
    comparable: bool = True
    as_theirs: bool = False
    seconds: list[float] = field(default_factory=list)
    value: float = float("nan")
    memory_mb: float = float("nan")

    def __post_init__(self):
        import torch

        # its learning rate is zero: AdamW does all its work, and every step finds the same weights
        fused = {} if self.as_theirs else {"fused": True}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, weight_decay=0.1, **fused)
        self.device = next(self.model.parameters()).device

    def step(self, keep: bool = True) -> None:
        import torch
        from measuring import now
        from transfer_peers import as_torchvision

        torch.manual_seed(0)  # proposals are sampled
        started = now(self.device)
        self.optimizer.zero_grad()
        with as_torchvision() if self.as_theirs else nullcontext():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                loss = self.loss(self.model)
            loss.backward()
        self.optimizer.step()
        if keep:
            self.seconds.append(now(self.device) - started)
        self.value = float(loss.detach())

    def measure_memory(self) -> None:
        from measuring import step_memory_mb

        self.step(keep=False)
        self.optimizer.zero_grad()
        self.memory_mb = step_memory_mb(lambda: self.step(keep=False), self.device)


def read_model(config: Path, size: int):
    """The config's model for images of ``size`` pixels, without random depth."""
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope

    from emae_mm.registry import MODELS

    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(img_size=size, drop_path_rate=0.0, pretrained="random")
    for head in ("decode_head", "auxiliary_head"):
        if head in cfg.model:
            cfg.model[head].dropout_ratio = 0.0
    return revert_sync_batchnorm(MODELS.build(cfg.model))


def randomise_positions(model) -> None:
    """Positions and biases that matter: fresh ones are zero."""
    import torch

    for name, parameter in model.named_parameters():
        if "rel_pos" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.05)


def total(losses: dict):
    """The sum of a model's loss terms, which may be lists."""
    terms = [value for name, value in losses.items() if "loss" in name]
    return sum(sum(value) if isinstance(value, (list, tuple)) else value for value in terms)


def objects(batch: int, size: int, device: str) -> list:
    """Boxes of COCO's usual sizes, with elliptic masks."""
    import numpy as np
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    rows, columns = np.mgrid[:size, :size]
    samples = []
    for _ in range(batch):
        extent = size * (0.05 + 0.4 * torch.rand(OBJECTS, 2, generator=generator))
        corner = torch.rand(OBJECTS, 2, generator=generator) * (size - extent)
        boxes = torch.cat([corner, corner + extent], dim=1)
        masks = [
            (((columns - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((rows - (y1 + y2) / 2) / (y2 - y1)) ** 2 <= 0.25)
            for x1, y1, x2, y2 in boxes.tolist()
        ]
        instances = InstanceData(
            bboxes=boxes.to(device),
            labels=torch.randint(80, (OBJECTS,), generator=generator).to(device),
            masks=BitmapMasks(np.stack(masks).astype(np.uint8), size, size),
        )
        shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=shape | dict(batch_input_shape=(size, size)))
        sample.gt_instances = instances
        samples.append(sample)
    return samples


def regions(batch: int, size: int, device: str) -> list:
    """Label maps of blocks of classes."""
    import torch
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(batch):
        coarse = torch.randint(150, (1, size // 32, size // 32), generator=generator)
        label = coarse.repeat_interleave(32, dim=1).repeat_interleave(32, dim=2)
        sample = SegDataSample(metainfo=dict(img_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=label.to(device))
        samples.append(sample)
    return samples


def vitdet(batch: int, size: int, precision: str, device: str) -> list[Candidate]:
    """The detector, and the same with explicit attention."""
    import torch
    from transfer_peers import ExplicitBlock, with_blocks, with_torch_linear, with_written_out_norms

    ours = read_model(VITDET, size).to(device)
    randomise_positions(ours.backbone)
    images, samples = torch.randn(batch, 3, size, size, device=device), objects(batch, size, device)
    explicit, theirs = copy.deepcopy(ours), copy.deepcopy(ours)
    for model in (explicit, theirs):
        with_blocks(model.backbone, ExplicitBlock)
    with_torch_linear(theirs)
    with_written_out_norms(theirs)

    def loss(model):
        return total(model.loss(images, copy.deepcopy(samples)))

    named = {"ours": ours, "explicit attention": explicit, "all as detectron2 computes it": theirs}
    return [Candidate(name, m, loss, precision, as_theirs=m is theirs) for name, m in named.items()]


def encoder(batch: int, size: int, precision: str, device: str) -> list[Candidate]:
    """ViTDet's encoder alone."""
    import torch
    from transfer_peers import BareBlock, ExplicitBlock, with_blocks, with_torch_linear

    ours = read_model(VITDET, size).backbone.to(device)
    randomise_positions(ours)
    images = torch.randn(batch, 3, size, size, device=device)
    explicit, theirs, bare = (copy.deepcopy(ours) for _ in range(3))
    for model, kind in ((explicit, ExplicitBlock), (theirs, ExplicitBlock), (bare, BareBlock)):
        with_blocks(model, kind)
    with_torch_linear(theirs)

    def loss(model):
        return model(images)[0].float().square().mean()

    named = {"ours": ours, "explicit attention": explicit, "all as detectron2 computes it": theirs}
    candidates = [Candidate(name, m, loss, precision, as_theirs=m is theirs) for name, m in named.items()]
    for parameter in bare.parameters():
        parameter.grad = torch.zeros_like(parameter)  # positions take no part, but AdamW steps them all the same
    return [*candidates, Candidate("no windows, positions, padding", bare, loss, precision, comparable=False)]


def upernet(batch: int, size: int, precision: str, device: str) -> list[Candidate]:
    """The segmenter, and mmsegmentation's."""
    import torch
    from transfer_peers import mmseg_upernet

    if size != 512:
        raise SystemExit("mmsegmentation's model is for 512 pixels: use --size 512")
    ours = read_model(UPERNET, size)
    randomise_positions(ours.backbone)
    theirs = mmseg_upernet(ours)
    images, samples = torch.randn(batch, 3, size, size, device=device), regions(batch, size, device)

    def loss(model):
        return total(model.loss(images, samples))

    named = {"ours": ours.to(device), "mmsegmentation": theirs.to(device)}
    return [Candidate(name, m.train(), loss, precision, as_theirs=m is theirs) for name, m in named.items()]


TASKS = {"vitdet": vitdet, "upernet": upernet, "encoder": encoder}


def measure(task: str, batch: int, size: int, precision: str, steps: int, device: str) -> list[dict]:
    """All candidates of a task, in turns."""
    import torch
    from measuring import matrix_peak, median_ratio

    torch.manual_seed(0)
    candidates = TASKS[task](batch, size, precision, device)
    ours = candidates[0]
    for candidate in candidates:
        candidate.measure_memory()
    gap = max(abs(c.value - ours.value) / abs(ours.value) for c in candidates if c.comparable)
    if not gap <= TOLERANCE[precision]:
        raise SystemExit(f"losses differ by {gap:.1e}: { {c.name: c.value for c in candidates} }")
    for _ in range(steps):
        for candidate in candidates:
            candidate.step()
    peak = matrix_peak(device, precision)
    return [
        dict(
            task=task, batch=batch, size=size, precision=precision, name=c.name, step_s=statistics.median(c.seconds),
            all_steps_s=c.seconds, memory_mb=c.memory_mb, loss=c.value, largest_loss_gap=gap,
            ours_faster=median_ratio(c.seconds, ours.seconds), ours_memory=ours.memory_mb / c.memory_mb,
            matrix_peak_gflops_per_s=peak,
        )
        for c in candidates
    ]  # fmt: skip


def print_rows(rows: list[dict], console: Console) -> None:
    first = rows[0]
    title = f"{first['task']}, ViT-B, {first['size']} pixels, {first['precision']}, batch {first['batch']}"
    table = Table(title=f"{title}; losses equal to {first['largest_loss_gap']:.0e}")
    for name in ("", "s/step", "MiB", "ours is faster", "ours' memory"):
        table.add_column(name, justify="right" if name else "left")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['step_s']:.3f}",
            f"{row['memory_mb']:.0f}",
            f"{row['ours_faster']:.2f}",
            f"{row['ours_memory']:.2f}",
        )
    console.print(table)


def main(
    task: Annotated[list[str], typer.Option(help="vitdet, upernet, encoder; may be repeated.")] = list(TASKS),  # noqa: B006
    precision: Annotated[list[str], typer.Option(help="fp32, bf16; may be repeated.")] = ["fp32"],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Images a step; at least 2 for upernet, whose batch norm needs them.")] = 2,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 512,
    steps: Annotated[int, typer.Option(help="Timed turns.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for transfer_step.json.")] = None,
) -> None:
    """Measure training steps of dense transfers."""
    silence_known_noise()
    from measuring import Report

    import emae_mm.registry  # noqa: F401

    report, console = Report(threads, steps, out and out / "transfer_step.json"), Console(width=130)
    console.print(report.hardware)
    for one_task in task:
        for one_precision in precision:
            rows = measure(one_task, batch, size, one_precision, steps, report.device)
            print_rows(rows, console)
            report.add(rows)


if __name__ == "__main__":
    typer.run(main)
