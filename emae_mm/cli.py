"""``emae-mm``: thin over the package; nothing heavy is imported before a command needs it."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from emae_mm import __version__
from emae_mm.errors import UserError
from emae_mm.transfer.options import evaluate, transfer

app = typer.Typer(
    name="emae-mm",
    help="Pre-train masked autoencoders, transfer them, and compare the results under one protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataRoot = Annotated[
    Path | None, typer.Option(help="Folder that holds the suite's data sets; not needed for the embedded one.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder for everything that is written.")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"emae-mm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(out: Out = Path("work_dirs/demo")) -> None:
    """Run the whole line on an embedded data set in about ten minutes on two CPU cores.

    Pre-trains EMAE and MAE, transfers both and a randomly initialised encoder to classification, detection and
    segmentation, and ends in a leaderboard. A second call resumes.
    """
    from emae_mm.suite.run import run_demo

    run_demo(out)


@app.command()
def suite(
    config: Annotated[str, typer.Argument(help="A suite below configs/suites/, or a file.")],
    data_root: DataRoot = None,
    out: Out = Path("work_dirs/suite"),
    jobs: Annotated[int, typer.Option(help="Stages that run at a time, each on its share of the cores.")] = 1,
) -> None:
    """Pre-train, transfer and compare every method of a suite; a second call resumes."""
    from emae_mm.suite.run import run_suite

    run_suite(config, data_root, out, jobs=jobs)


@app.command()
def leaderboard(
    work_dirs: Annotated[list[Path], typer.Argument(help="Folders searched for record.json files.")],
    out: Out = Path("leaderboard"),
) -> None:
    """Merge records with the published results into Markdown, CSV and one HTML page."""
    from emae_mm.leaderboard import leaderboard_command

    leaderboard_command(work_dirs, out)


app.command()(transfer)
app.command()(evaluate)

data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")
Layout = Enum("Layout", {name: name for name in ("imagenet", "coco", "ade20k", "openimages", "folder", "shards")})


@data_app.command("check")
def data_check(
    path: Annotated[
        str, typer.Argument(help="The data set's folder; for shards also a pattern like x-{000..099}.tar.")
    ],
    layout: Annotated[Layout, typer.Option("--as", help="What the folder is.")],
    sample: Annotated[int, typer.Option(min=0, help="Images to decode in each split, drawn at random.")] = 1000,
    everything: Annotated[bool, typer.Option("--all", help="Decode every image.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode.")] = 8,
    report: Annotated[Path | None, typer.Option(help="File that gets what is printed.")] = None,
) -> None:
    """Count a data set, decode its images and name every broken file; exit status 1 if there is one."""
    from emae_mm.data.checks.command import check_command

    whole = check_command(path, layout.value, None if everything else sample, workers, report)
    raise typer.Exit(0 if whole else 1)


@app.command()
def cost(
    config: Annotated[str | None, typer.Argument(help="A config below configs/, or a file.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs, one process each.")] = 8,
    device: Annotated[str, typer.Option(help="What they are: V100, A100, H100, H200, B200, ...")] = "A100",
    utilisation: Annotated[float, typer.Option(help="Share of their peak that is taken to be reached.")] = 0.35,
    tflops: Annotated[float | None, typer.Option(help="TFLOP/s of each instead.")] = None,
    images_per_second: Annotated[float | None, typer.Option(help="Images/s of all together instead.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Training images, where the data are your own.")] = None,
    cfg_options: Annotated[list[str] | None, typer.Option(help="key.sub=value overriding the config.")] = None,
    table1: Annotated[bool, typer.Option("--table1", help="The EMAE paper's Table I from counted FLOPs.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="File that gets the numbers.")] = None,
) -> None:
    """Count what a training costs: parameters, FLOPs, tokens, memory, steps, hours. Needs neither data nor GPU."""
    from emae_mm.cost.command import Machine, cost_command

    machine = Machine(gpus, device, utilisation, tflops, images_per_second)
    cost_command(config, machine, images, cfg_options, table1, json_file)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file, a Hugging Face folder, or timm:NAME.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; a folder for hf.")],
    to: Annotated[str, typer.Option("--to", help="timm, mae, hf, mmpretrain, detectron2 or emae.")],
    allow_missing: Annotated[
        list[str] | None, typer.Option(help="Encoder tensor that may be left out; a pattern like norm.*, too; repeat.")
    ] = None,
    num_heads: Annotated[int | None, typer.Option(min=1, help="Attention heads, where nothing says them.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
) -> None:
    """Write the encoder of any known checkpoint in another library's format."""
    from emae_mm.checkpoints.convert import convert_command

    convert_command(source, out, to, allow_missing or (), num_heads, force)


@app.command()
def doctor() -> None:
    """Say what is installed, what falls back to what, and what to do about each problem."""
    from emae_mm.doctor import main as examine

    raise typer.Exit(examine())


def main() -> None:
    """Entry point: errors a user can mend are one message and exit status 2."""
    try:
        app()
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
