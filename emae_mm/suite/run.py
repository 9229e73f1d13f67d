"""Running a suite: every stage once, each resumed where it was interrupted."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from emae_mm.errors import ConfigError, UserError
from emae_mm.suite.ledger import Ledger
from emae_mm.suite.plan import Stage, Suite, load_suite, plan
from emae_mm.suite.progress import StageProgress, bars, clock, standard_output

PICTURE = "reconstructions.png"
LAUNCHED = ("pretrain", "transfer")
"""The kinds of stages that train or test, and may do so in a process of their own."""


@dataclass(frozen=True)
class _Context:
    suite: Suite
    ledger: Ledger
    console: Console


def run_demo(out: Path, console: Console | None = None) -> None:
    """Run the ``demo`` suite on the embedded data set, which is made below ``out`` on first use."""
    run_suite("demo", None, out, console)


def run_suite(
    name: str | Path, data_root: Path | None, out: Path, console: Console | None = None, jobs: int = 1
) -> None:
    """Run all stages of a suite, in order and in this process, or several at a time in processes of their own.

    A stage that finished with the same configuration is not run again, an interrupted one goes on from its last
    checkpoint. A stage that fails loses only what needs it; the error is raised at the end.

    Args:
        name: suite below ``configs/suites/``, or a file.
        data_root: folder the suite's ``data`` entries are relative to; None: ``out/data``, for suites on the embedded
            data set, which is made there on first use.
        out: where every stage writes.
        console: where progress goes.
        jobs: stages that run at a time, sharing the processor's cores (and the GPU, where there is one). For models
            so small that a step does not fill all cores, one job a core is fastest.

    Raises:
        UserError: whatever a stage's configuration or data lacks; finished stages stay finished.
    """
    from emae_mm.quiet import silence_known_noise

    silence_known_noise()
    console = console or standard_output()  # this very stream, which launch_stage redirects for the stages
    suite = load_suite(name)
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs} is too small", "use at least 1")
    if data_root is None and not suite.embedded_data:
        raise ConfigError(f"suite {suite.name} needs data", "give --data-root, the folder that holds its data sets")
    stages = plan(suite, data_root or out / "data", out)
    context = _Context(suite, Ledger(), console)
    started = time.monotonic()
    with bars(console) as shared:

        def show(stage: Stage) -> StageProgress:
            return StageProgress(console, stages.index(stage) + 1, len(stages), stage.title, shared)

        _run_stages(stages, context, show, jobs)
    console.print(
        f"total {clock(time.monotonic() - started)}; the leaderboard is in {out / 'leaderboard'}", highlight=False
    )
    context.ledger.raise_failures()


def _run_stages(stages: list[Stage], context: _Context, show: Callable[[Stage], StageProgress], jobs: int) -> None:
    launched = [stage for stage in stages if stage.kind in LAUNCHED]
    for stage in stages:
        if stage.kind not in LAUNCHED or jobs == 1:
            _run_here(stage, context, show(stage))
        elif stage is launched[0]:
            from emae_mm.suite.parallel import run_in_processes

            run_in_processes(launched, jobs, context.ledger, show)


def _run_here(stage: Stage, context: _Context, progress: StageProgress) -> None:
    ledger = context.ledger
    if ledger.is_lost(stage):
        progress.end(ledger.skip(stage))
        return
    try:
        outcome = _RUNNERS[stage.kind](stage, context, progress)
    except UserError as error:
        progress.end(ledger.fail(stage, error))
        if stage.kind == "data":
            raise  # nothing can be done without
    else:
        progress.end(ledger.finish(stage, outcome))


def _make_data(stage: Stage, context: _Context, progress: StageProgress) -> str:
    from emae_mm.data.demo import make_demo_dataset

    make_demo_dataset(stage.work_dir, progress=lambda done, total: progress(done, total, what="image"))
    return "a demonstration, not a benchmark"


def _launch(stage: Stage, context: _Context, progress: StageProgress) -> str:
    from emae_mm.suite.work import launch_stage

    return launch_stage(stage, progress)


def _reconstruct(stage: Stage, context: _Context, progress: StageProgress) -> str:
    from emae_mm.suite.pictures import draw_reconstructions

    trained = context.ledger.of_kind("pretrain")
    if not trained:
        return "nothing to show"
    path = stage.work_dir / PICTURE
    measured = draw_reconstructions(trained, stage.data_root, path, context.suite.reconstruct, context.suite.note)
    numbers = ", ".join(f"{method} {result.disagreement:.3f}" for method, result in measured.items())
    return f"disagreement between masks: {numbers}"


def _leaderboard(stage: Stage, context: _Context, progress: StageProgress) -> str:
    from emae_mm.leaderboard import print_summary, write_leaderboard

    work_dirs = [s.work_dir for s in context.ledger.of_kind("transfer")]
    if not work_dirs:
        return "nothing to show"
    pictures = [s.work_dir / PICTURE for s in context.ledger.of_kind("reconstruct")]
    figures = [("Reconstructions under several masks", path) for path in pictures if path.is_file()]
    files = write_leaderboard(work_dirs, stage.work_dir, figures=figures)
    if not context.suite.tables:  # they show the same numbers where a reader looks for them
        print_summary(files.tables, context.console)
    return f"written to {files.markdown.name}, {files.csv.name} and {files.html.name}"


def _tables(stage: Stage, context: _Context, progress: StageProgress) -> str:
    from emae_mm.leaderboard import (
        build_paper_tables,
        find_records,
        load_published,
        print_paper_tables,
        write_paper_tables,
    )

    suite = context.suite
    records = find_records(*(s.work_dir for s in context.ledger.of_kind(*LAUNCHED)))
    tables = build_paper_tables(suite.table_specs(), records, load_published(), suite.epoch_scale)
    files = write_paper_tables(tables, stage.work_dir, suite.name)
    print_paper_tables(tables, context.console)
    return f"written to {', '.join(path.name for path in files)} in {stage.work_dir}"


_RUNNERS = {
    "data": _make_data,
    "pretrain": _launch,
    "transfer": _launch,
    "reconstruct": _reconstruct,
    "leaderboard": _leaderboard,
    "tables": _tables,
}
