"""Stages of a long run: each done once, timed across interruptions, with an estimate of the rest.

A stage has a file, `stages/<name>.json`: the seconds spent on it so far, when it was begun, at
which commit and on which machine; once it is done, also what it returned. A run that is stopped
and goes on adds to the seconds, so that they sum to what the whole took.
"""

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic

from tqdm import tqdm

from icsim.files import write_json

NOTED_EVERY_S = 5.0
"""How often the time of a running stage is written, and so how much of it a kill can lose [s]."""


def read(out: Path) -> dict[str, dict]:
    """What is noted of every stage that was begun, by name, in the order of their beginnings."""
    files = (out / "stages").glob("*.json")
    noted = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    return dict(sorted(noted.items(), key=lambda item: item[1]["begun"]))


def finished(out: Path) -> dict[str, dict]:
    """The stages that were done to their end."""
    return {name: stage for name, stage in read(out).items() if "result" in stage}


def stage(
    out: Path,
    plan: Mapping[str, float | None],
    name: str,
    work: Callable[[], object],
    again: bool = False,
) -> None:
    """Do a stage unless it is done; its time and what it returned are kept.

    Args:
        out: Folder of the run.
        plan: What every stage of the run usually takes [s], by name, in order; None if unknown.
        name: Which of them.
        work: Returns what JSON can say.
        again: Do it even if it is done.
    """
    noted = read(out)
    if name in finished(out) and not again:
        return
    path = out / "stages" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    place = f"stage {list(plan).index(name) + 1} of {len(plan)}"
    print(f"\n{place}: {name}{_left(plan, noted, name)}", flush=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    facts = {"begun": noted.get(name, {}).get("begun", now), **origin()}
    spent_s = 0.0 if again else noted.get(name, {}).get("seconds", 0.0)

    def describe(seconds: float) -> str:
        return f"{place}{_left(plan, noted | {name: {'seconds': seconds}}, name)}"

    with _noting(path, facts, spent_s, describe) as seconds:
        result = work()
    write_json(path, facts | {"seconds": seconds(), "result": result})


def remaining_s(
    plan: Mapping[str, float | None], spent_s: Mapping[str, float], current: str
) -> float | None:
    """What a stage and those after it may still take [s]; None if nothing is known of that.

    The usual times are scaled by what the stages before took.

    >>> remaining_s({"a": 10.0, "b": 20.0, "c": 5.0}, {"a": 20.0, "b": 30.0}, "b")
    20.0
    """
    usual = {name: seconds for name, seconds in plan.items() if seconds is not None}
    if len(usual) < len(plan):
        return None
    done = list(plan)[: list(plan).index(current)]
    timed = [name for name in done if name in spent_s]
    usual_s = sum(usual[name] for name in timed)
    pace = sum(spent_s[name] for name in timed) / usual_s if usual_s else 1.0
    after_s = sum(seconds for name, seconds in usual.items() if name not in (*done, current))
    return pace * after_s + max(0.0, pace * usual[current] - spent_s.get(current, 0.0))


@functools.cache
def origin() -> dict[str, str]:
    """The commit or version of this program, and the machine that it runs on."""
    root = Path(__file__).parents[2]
    commit = f"version {importlib.metadata.version('icsim')}"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        git = ["git", "-C", str(root)]
        answer = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
        commit = answer.stdout.strip() + (" with local changes" if changed.stdout.strip() else "")
    machine = f"{processor()}, {cores()} cores, {platform.system()} {platform.machine()}"
    packages = ", ".join(
        f"{name} {version}"
        for name, version in (
            ("Python", platform.python_version()),
            ("PyTorch", importlib.metadata.version("torch")),
        )
    )
    return {"commit": commit, "machine": machine, "packages": packages}


def processor() -> str:
    """What this machine's processor is called."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def duration(seconds: float) -> str:
    """A time that is read at a glance.

    >>> duration(4.2), duration(75)
    ('4.2 s', '1 min 15 s')
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s"
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


def _left(plan: Mapping[str, float | None], noted: Mapping[str, dict], name: str) -> str:
    """How long this and the other stages may still take, in words; nothing if unknown."""
    left_s = remaining_s(plan, {n: stage["seconds"] for n, stage in noted.items()}, name)
    if left_s is None:
        return ""
    minutes = round(left_s / 60)
    return f", about {minutes} min left in all" if minutes else ", less than a minute left in all"


@contextlib.contextmanager
def _noting(
    path: Path, facts: dict, spent_s: float, describe: Callable[[float], str]
) -> Iterator[Callable[[], float]]:
    """Note the seconds of a stage now and then, however it ends, and show what is left.

    Yields:
        What tells the seconds so far, those of earlier runs with them.
    """
    started, over = monotonic(), threading.Event()

    def seconds() -> float:
        return spent_s + monotonic() - started

    def note() -> None:
        # A full disk is reported by the work itself.
        with contextlib.suppress(OSError):
            write_json(path, facts | {"seconds": seconds()})

    with tqdm(bar_format="{desc}", leave=False, disable=not sys.stderr.isatty()) as line:

        def watch() -> None:
            while not over.wait(NOTED_EVERY_S):
                note()
                line.set_description_str(describe(seconds()))

        note()
        line.set_description_str(describe(seconds()))
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield seconds
        finally:
            over.set()
            watcher.join()
            note()
