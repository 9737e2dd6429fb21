"""Pieces of a benchmark, side by side in processes of their own, done once and timed."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch
from tqdm import tqdm

from icsim.files import write_json
from recipes.running.commands import end_after

BY_TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
"""What Python is given to run a training on two processes of this machine."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One piece of work."""

    name: str
    """As the progress bar calls it."""
    work: Callable
    """Called with `config`; a function of a module, so that another process finds it."""
    config: object
    """Its only argument."""
    done: Path
    """A file that appears once the work is done, and holds its seconds."""


def side_by_side(stage: str, jobs: Sequence[Job], count: int, out: Path) -> None:
    """Do the jobs that are not done, some at a time; one at a time in this process.

    What other processes print goes to `log.txt`, the seconds of the stage to `stages.json`.
    """
    missing = [job for job in jobs if not job.done.is_file()]
    if not missing:
        return
    if count == 1:
        with timed_stage(out, stage):
            for job in missing:
                _timed(job)
        return
    threads = max(1, (os.cpu_count() or 1) // count)
    with (
        timed_stage(out, stage),
        killed_named(stage, "--jobs"),
        processes(count, threads, out / "log.txt") as pool,
        tqdm(total=len(missing), desc=f"{out.name}: {stage}", unit="job") as bar,
    ):
        running = {pool.submit(_timed, job): job.name for job in missing}
        for future in as_completed(running):
            future.result()
            bar.set_postfix_str(f"{running[future]} done")
            bar.update()


def finished(out: Path, stage: str) -> bool:
    """Whether a stage was done to its end."""
    path = out / "stages.json"
    return path.is_file() and stage in json.loads(path.read_text())


@contextlib.contextmanager
def timed_stage(out: Path, name: str) -> Iterator[None]:
    """Add the seconds of a stage to those in `stages.json`."""
    started = time.monotonic()
    yield
    path = out / "stages.json"
    seconds = json.loads(path.read_text()) if path.is_file() else {}
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started
    write_json(path, seconds)


@contextlib.contextmanager
def processes(
    count: int, threads: int = 1, log: Path | None = None
) -> Iterator[ProcessPoolExecutor]:
    """A pool of new processes, which end with this one, at once when it is interrupted.

    Args:
        count: How many.
        threads: Of torch, in each.
        log: Where they print, if not where this one does.
    """
    context = get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _begin_process, (threads, log))
    try:
        yield pool
        pool.shutdown()
    except KeyboardInterrupt:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


@contextlib.contextmanager
def killed_named(stage: str, option: str) -> Iterator[None]:
    """Say in one message that a process of a pool was killed.

    Args:
        stage: What the processes do.
        option: Which option of the recipe says how many there are.

    Raises:
        ChildProcessError: If one was.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a process of {stage!r} was killed, by want of memory perhaps: fewer {option} need "
            "less"
        ) from error


def _begin_process(threads: int, log: Path | None) -> None:
    # It would wait for work for ever, or finish what another one redoes.
    if parent := parent_process():
        end_after(parent.join)
    torch.set_num_threads(threads)
    if log is None:
        return
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _timed(job: Job) -> None:
    started = time.monotonic()
    job.work(job.config)
    # Of its last run, where it was interrupted.
    write_json(job.done, {"seconds": time.monotonic() - started})
