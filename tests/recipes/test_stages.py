"""Stages of a run: done once, timed across interruptions, with an estimate of what is left."""

import json
import threading

import pytest

from recipes.running import stages

PLAN = {"simulation": 60.0, "training": 240.0, "report": 60.0}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test lets them."""
    seconds = [0.0]
    monkeypatch.setattr(stages, "monotonic", lambda: seconds[0])
    return seconds


def test_seconds_of_an_interrupted_stage_add_up(tmp_path, clock):
    def interrupted():
        clock[0] += 100
        raise KeyboardInterrupt

    def rest():
        clock[0] += 50
        return "trained"

    with pytest.raises(KeyboardInterrupt):
        stages.stage(tmp_path, PLAN, "training", interrupted)
    assert stages.finished(tmp_path) == {}
    clock[0] += 3600  # nobody works on it
    stages.stage(tmp_path, PLAN, "training", rest)
    found = stages.finished(tmp_path)["training"]
    assert found["seconds"] == 150
    assert found["result"] == "trained"


def test_a_killed_stage_has_its_time_noted(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(stages, "NOTED_EVERY_S", 0.01)
    noted, waited = [], threading.Event()

    def work():
        clock[0] += 30
        for _ in range(500):  # as long as the other thread may need to get its turn
            waited.wait(0.02)
            noted.append(stages.read(tmp_path)["training"]["seconds"])
            if noted[-1] == 30:
                return

    stages.stage(tmp_path, PLAN, "training", work)
    assert noted[-1] == 30


def test_a_stage_is_done_once_unless_it_is_asked_for_again(tmp_path, clock):
    done = []

    def work():
        clock[0] += 10
        done.append(len(done))
        return done[-1]

    stages.stage(tmp_path, PLAN, "report", work)
    stages.stage(tmp_path, PLAN, "report", work)
    assert done == [0]
    stages.stage(tmp_path, PLAN, "report", work, again=True)
    assert done == [0, 1]
    assert stages.finished(tmp_path)["report"]["seconds"] == 10


def test_what_is_left_is_said_at_the_pace_of_what_was_done(tmp_path, clock, capsys):
    def work(seconds):
        clock[0] += seconds

    stages.stage(tmp_path, PLAN, "simulation", lambda: work(120))
    stages.stage(tmp_path, PLAN, "training", lambda: work(480))
    stages.stage(tmp_path, PLAN, "report", lambda: work(20))
    assert capsys.readouterr().out.split("\n\n") == [
        "\nstage 1 of 3: simulation, about 6 min left in all",
        "stage 2 of 3: training, about 10 min left in all",
        "stage 3 of 3: report, about 2 min left in all\n",
    ]
    stages.stage(tmp_path / "other", dict.fromkeys(PLAN), "report", lambda: work(20))
    assert capsys.readouterr().out == "\nstage 3 of 3: report\n"


def test_a_stage_says_where_it_was_done(tmp_path):
    stages.stage(tmp_path, PLAN, "report", lambda: None)
    found = json.loads((tmp_path / "stages" / "report.json").read_text())
    assert found["commit"]
    assert f"{stages.cores()} cores" in found["machine"]
    assert found["packages"].startswith("Python 3")
