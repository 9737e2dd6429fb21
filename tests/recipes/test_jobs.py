"""Jobs side by side: each done once, what was done before a failure is kept."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes.running.jobs import Job, side_by_side


@dataclasses.dataclass(frozen=True)
class Sum:
    """A job's configuration."""

    numbers: tuple[int, ...]
    out: str


def add(config: Sum) -> None:
    """Write a sum; print, as recipes do."""
    if not config.numbers:
        raise ValueError("nothing to add")
    print("adding")
    with Path(config.out).open("a") as file:
        file.write(f"{sum(config.numbers)}\n")


def test_jobs_are_done_once_and_what_was_done_before_a_failure_is_kept(tmp_path):
    def job(name, *numbers):
        config = Sum(numbers, str(tmp_path / f"{name}.txt"))
        return Job(name, add, config, tmp_path / f"{name}.json")

    with pytest.raises(ValueError, match="nothing to add"):
        side_by_side("sums", [job("one", 1), job("none")], 1, tmp_path)  # in this process
    assert (tmp_path / "one.txt").read_text() == "1\n"
    assert not (tmp_path / "none.json").exists()
    side_by_side("sums", [job("one", 1), job("two", 1, 1)], 2, tmp_path)
    assert (tmp_path / "one.txt").read_text() == "1\n", "done again"
    assert (tmp_path / "two.txt").read_text() == "2\n"
    assert json.loads((tmp_path / "two.json").read_text())["seconds"] >= 0
    assert json.loads((tmp_path / "stages.json").read_text())["sums"] > 0
    assert (tmp_path / "log.txt").read_text() == "adding\n"


LINGER = """
import os, sys, time
from pathlib import Path
from recipes.running.jobs import Job, side_by_side

def linger(folder):
    Path(folder, f"{os.getpid()}.pid").touch()
    time.sleep(120)

if __name__ == "__main__":
    out = Path(sys.argv[1])
    side_by_side("jobs", [Job(n, linger, str(out), out / f"{n}.json") for n in "ab"], 2, out)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked up in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    script = tmp_path / "linger.py"
    script.write_text(LINGER)
    root = str(Path(__file__).parents[2])
    main = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    assert _until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    main.kill()
    main.wait()
    pids = [path.stem for path in tmp_path.glob("*.pid")]
    assert _until(lambda: not any(Path("/proc", pid, "cmdline").is_file() for pid in pids))


def _until(happened, most_s: float = 90.0) -> bool:
    end = time.monotonic() + most_s
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
