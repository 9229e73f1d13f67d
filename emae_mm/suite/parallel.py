"""Several stages at a time, each in a process of its own."""

import multiprocessing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from emae_mm.cores import threads_each
from emae_mm.errors import UserError
from emae_mm.suite.ledger import Ledger
from emae_mm.suite.plan import Stage
from emae_mm.suite.progress import StageProgress


@dataclass
class _Job:
    stage: Stage
    process: BaseProcess
    progress: StageProgress


def run_in_processes(
    stages: Iterable[Stage], jobs: int, ledger: Ledger, show: Callable[[Stage], StageProgress]
) -> None:
    """Launch pre-trainings and transfers, up to ``jobs`` at a time; a transfer waits for its pre-training.

    Each process gets its share of the processor's cores. A stage that fails, or whose process dies, loses no other.

    Args:
        stages: of the kinds ``"pretrain"`` and ``"transfer"``, started in this order as far as possible.
        jobs: processes at a time.
        ledger: learns how each stage ended.
        show: makes a stage's progress line when it starts.
    """
    # a server that has imported everything forks each child: imports are paid once, and no child inherits threads
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["emae_mm.suite.preload"])
    threads = threads_each(jobs)
    waiting, running = list(stages), {}
    try:
        while waiting or running:
            for stage in [stage for stage in waiting if ledger.is_ready(stage) or ledger.is_lost(stage)]:
                if ledger.is_lost(stage):
                    show(stage).end(ledger.skip(stage))
                elif len(running) < jobs:
                    pipe, job = _start(context, stage, threads, show)
                    running[pipe] = job
                else:
                    continue
                waiting.remove(stage)
            if running:  # not so where all that was waiting has just been skipped
                wait([end for pipe, job in running.items() for end in (pipe, job.process.sentinel)])
            for pipe in [pipe for pipe, job in running.items() if _listen(pipe, job, ledger)]:
                running.pop(pipe).process.join()
    finally:
        for job in running.values():
            job.process.terminate()
            job.process.join()


def _start(context, stage: Stage, threads: int, show: Callable[[Stage], StageProgress]) -> tuple[Connection, _Job]:
    from emae_mm.suite.work import work

    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(stage, threads, sender), daemon=True)
    process.start()
    sender.close()  # the child's end only: its death is then the end of the pipe
    return receiver, _Job(stage, process, show(stage))


def _listen(pipe: Connection, job: _Job, ledger: Ledger) -> bool:
    """Take what messages there are; True when the stage has ended."""
    dead = not job.process.is_alive()  # asked first: what it sent before it died is still in the pipe
    try:
        while pipe.poll():
            kind, *content = pipe.recv()
            if kind == "progress":
                args, kwargs = content
                job.progress(*args, **kwargs)
            else:
                job.progress.end(_END[kind](job.stage, content[0], ledger))
                return True
    except (EOFError, OSError):  # OSError: it was killed in the middle of a message
        job.process.join()
        dead = True
    if dead:
        job.progress.end(_crash(job.stage, f"its process died with exit code {job.process.exitcode}", ledger))
    return dead


def _crash(stage: Stage, details: str, ledger: Ledger) -> str:
    fix = f"its log is below {stage.work_dir}; the same call goes on from the last checkpoint"
    last = details.strip().rpartition("\n")[2]
    return ledger.fail(stage, UserError(f"{stage.title} stopped: {last}", fix), details)


_END = {
    "done": lambda stage, outcome, ledger: ledger.finish(stage, outcome),
    "failed": lambda stage, error, ledger: ledger.fail(stage, error),
    "crashed": _crash,
}
