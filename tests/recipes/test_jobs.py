"""Jobs side by side: each done once, what was done before a failure is kept."""

import dataclasses
import json
from pathlib import Path

import pytest

from recipes.jobs import Job, side_by_side


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
