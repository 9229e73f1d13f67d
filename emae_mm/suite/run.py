"""Running a suite: every stage once, each resumed where it was interrupted."""

import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console

from emae_mm.suite.plan import Stage, Suite, load_suite, plan
from emae_mm.suite.progress import StageProgress, clock, stage_progress

PICTURE = "reconstructions.png"


@dataclass(frozen=True)
class _Context:
    suite: Suite
    stages: list[Stage]
    console: Console


def run_demo(out: Path, console: Console | None = None) -> None:
    """Run the ``demo`` suite on the embedded data set, which is made below ``out`` on first use."""
    run_suite("demo", out / "data", out, console)


def run_suite(name: str | Path, data_root: Path, out: Path, console: Console | None = None) -> None:
    """Run all stages of a suite in order, in this process.

    A stage that finished with the same configuration is not run again, an interrupted one goes on from its last
    checkpoint.

    Args:
        name: suite below ``configs/suites/``, or a file.
        data_root: folder the suite's ``data`` entries are relative to.
        out: where every stage writes.
        console: where progress goes.

    Raises:
        UserError: whatever a stage's configuration or data lacks; finished stages stay finished.
    """
    from emae_mm.quiet import silence_known_noise

    silence_known_noise()
    console = console or Console(file=sys.stdout)  # this very stream, which _launch redirects for the stages
    suite = load_suite(name)
    stages = plan(suite, data_root, out)
    context = _Context(suite, stages, console)
    started = time.monotonic()
    for index, stage in enumerate(stages, start=1):
        with stage_progress(console, index, len(stages), stage.title) as progress:
            outcome = _RUNNERS[stage.kind](stage, context, progress)
        console.print(f"{progress.label}: {outcome} ({clock(progress.elapsed())})", highlight=False)
    console.print(
        f"total {clock(time.monotonic() - started)}; the leaderboard is in {out / 'leaderboard'}", highlight=False
    )


def _make_data(stage: Stage, context: "_Context", progress: StageProgress) -> str:
    from emae_mm.data.demo import make_demo_dataset

    make_demo_dataset(stage.work_dir, progress=lambda done, total: progress(done, total, what="image"))
    return "a demonstration, not a benchmark"


def _launch(stage: Stage, context: "_Context", progress: StageProgress) -> str:
    """Train or test one config unless its record is there already."""
    from emae_mm.engine import launch
    from emae_mm.leaderboard.records import read_record

    cfg = launch.prepare_config(
        stage.config,
        work_dir=stage.work_dir,
        data_root=stage.data_root,
        pretrained=stage.pretrained or None,
        resume="auto",
    )
    if launch.is_finished(cfg):
        return f"finished before, {_headline(read_record(stage.work_dir / 'record.json'))}"
    with redirect_stdout(StringIO()):  # pycocotools and others print tables that the logs hold, too
        launch.run(cfg, progress=progress, quiet=True)
    return _headline(read_record(stage.work_dir / "record.json"))


def _headline(record) -> str:
    if not record.metrics:
        return "done"
    metric = record.metrics[record.primary]
    return f"{record.primary} {metric.value:.4g} {metric.unit}".strip()


def _reconstruct(stage: Stage, context: "_Context", progress: StageProgress) -> str:
    from emae_mm.suite.pictures import draw_reconstructions

    trained = [s for s in context.stages if s.kind == "pretrain"]
    path = stage.work_dir / PICTURE
    measured = draw_reconstructions(trained, stage.data_root, path, context.suite.reconstruct, context.suite.note)
    numbers = ", ".join(f"{method} {result.disagreement:.3f}" for method, result in measured.items())
    return f"disagreement between masks: {numbers}"


def _leaderboard(stage: Stage, context: "_Context", progress: StageProgress) -> str:
    from emae_mm.leaderboard import print_summary, write_leaderboard

    pictures = [s.work_dir / PICTURE for s in context.stages if s.kind == "reconstruct"]
    figures = [("Reconstructions under several masks", path) for path in pictures]
    work_dirs = [s.work_dir for s in context.stages if s.kind == "transfer"]
    files = write_leaderboard(work_dirs, stage.work_dir, figures=figures)
    print_summary(files.tables, context.console)
    return f"written to {files.markdown.name}, {files.csv.name} and {files.html.name}"


_RUNNERS = {
    "data": _make_data,
    "pretrain": _launch,
    "transfer": _launch,
    "reconstruct": _reconstruct,
    "leaderboard": _leaderboard,
}
