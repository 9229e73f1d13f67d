"""Images per second of pre-training's input pipelines, measured in turns, and how much the fast one's images differ.

Compares, on one core and through a DataLoader:
  torchvision   PIL decoding, RandomResizedCrop(224, (0.2, 1), bicubic, antialias), flip, ToTensor, Normalize
  mmpretrain    LoadImageFromFile, RandomResizedCrop (Pillow, bicubic), RandomFlip, PackInputs
  exact, fast   this project's full-size pre-training pipeline, with exact=True and as it is

    python benchmarks/data_loading.py --out work_dirs/benchmarks
"""

import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from emae_mm.fileio import write_text
from emae_mm.quiet import silence_known_noise


def print_speed(speed: dict, workers: int, console: Console) -> None:
    table = Table(title="Images per second (in brackets: how many times the fast pipeline is as fast)")
    titles = {"samples": "per core", "batches": "per core, normalised on it", "loader": f"{workers} workers"}
    kinds = list(next(iter(speed.values())))
    for title in ("pipeline", *(titles[kind] for kind in kinds)):
        table.add_column(title, justify="left" if title == "pipeline" else "right")
    for name, row in speed.items():
        cells = [f"{row[kind]['images_per_s']:.0f} ({row[kind]['ours_is_faster_by']:.2f}x)" for kind in kinds]
        table.add_row(name, *cells)
    console.print(table)


def print_comparison(result: dict, console: Console) -> None:
    table = Table(title=f"Fast against exact, the same crops of {result['images']} images")
    for title in ("", "R", "G", "B"):
        table.add_column(title, justify="right" if title else "left")
    for key, digits in (("mean_exact", 3), ("mean_difference", 5), ("variance_exact", 1), ("variance_ratio", 6)):
        table.add_row(key.replace("_", " "), *(f"{value:.{digits}f}" for value in result[key]))
    console.print(table)
    for scale, row in result["psnr"].items():
        console.print(
            f"decoded at {scale}: {row['images']} images, PSNR mean {row['mean']:.1f} dB, 5th percentile "
            f"{row['p5']:.1f} dB, least {row['min']:.1f} dB"
        )
    full = result["full_decoding"]
    if full["equal_values"] is not None:
        console.print(
            f"at full size {100 * full['equal_values']:.2f} % of the values are equal, the others differ by at most "
            f"{full['largest_difference']} levels"
        )


def main(
    images: Annotated[Path | None, typer.Option(help="Folder of images; without it JPEGs are made.")] = None,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT of the JPEGs to make.")] = "500x375",
    quality: Annotated[int, typer.Option(help="Their quality.")] = 90,
    count: Annotated[int, typer.Option(help="Number of images to make and to compare.")] = 2000,
    timed: Annotated[int, typer.Option(help="Number of images in a timed round.")] = 512,
    rounds: Annotated[int, typer.Option(help="Timed rounds, 7 or more for a stable median; 0 only compares.")] = 9,
    workers: Annotated[int, typer.Option(help="Workers of the DataLoader; 0 leaves it out.")] = 2,
    comparison: Annotated[bool, typer.Option("--compare/--no-compare", help="Compare the images.")] = True,
    out: Annotated[Path | None, typer.Option(help="Folder for data_loading.json.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where the JPEGs are kept; the temporary folder if left out.")
    ] = None,
) -> None:
    """Measure the input pipelines."""
    silence_known_noise()
    import cv2
    import numpy as np
    import torch
    from input_pipelines import BATCH, compare, measure, summary
    from jpegs import jpeg_folder
    from PIL import features

    from emae_mm.data.files import list_images
    from emae_mm.leaderboard.provenance import code_version, cpu_name, library_versions

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    console = Console()
    folder = images or jpeg_folder(
        cache or Path(tempfile.gettempdir()), count, *(int(part) for part in size.split("x")), quality
    )
    paths = [str(folder / name) for name in list_images(folder)][:count]
    if not paths:
        raise typer.BadParameter(f"{folder} holds no images", param_hint="--images")
    mean_bytes = float(np.mean([os.path.getsize(path) for path in paths]))
    report = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "cpu_kernels": torch.backends.cpu.get_cpu_capability(),
        "libraries": library_versions()
        | {name: version(name) for name in ("pillow", "opencv-python-headless", "simplejpeg")}
        | {"pillow's libjpeg-turbo": features.version("libjpeg_turbo")},
        "code": vars(code_version()),
        "images": {"folder": str(folder), "count": len(paths), "mean_bytes": mean_bytes},
        "settings": {"timed": min(timed, len(paths)), "rounds": rounds, "workers": workers, "batch": BATCH},
    }
    console.print(f"{report['cpu']}, {report['cores']} cores; {len(paths)} images of {mean_bytes / 1000:.0f} kB")
    if rounds:
        report["speed"] = summary(measure(paths[:timed], rounds, workers, console))
        print_speed(report["speed"], workers, console)
    if comparison:
        report["comparison"] = compare(paths)
        print_comparison(report["comparison"], console)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "data_loading.json", json.dumps(report, indent=2) + "\n")
        console.print(f"written: {out / 'data_loading.json'}")


if __name__ == "__main__":
    typer.run(main)
