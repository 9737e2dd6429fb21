"""The benchmark of fitting by ear at the smallest size, and what its numbers mean."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from compensation import simulated_listeners as simulated
from compensation.preference import Comparison
from compensation.simulated_listeners import Answering
from evaluation.comparison import CANNOT_BE_TOLD
from evaluation.midbrains import restorations
from evaluation.neural import fidelity_and_clarity, pooled_restoration
from evaluation.tidy import where
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.sound import calibrate
from recipes.benchmarks import listening as recipe
from recipes.reports import listening as report
from recipes.reports.tables import number
from recipes.running.commands import parse

TINY = "recipes/configs/benchmarks/listening/tiny.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The benchmark of size tiny, run once: its configuration, folder and summary."""
    out = tmp_path_factory.mktemp("listening") / "tiny"
    config = parse(recipe.Config, ["--config", TINY, "--out", str(out)])
    return config, out, recipe.benchmark(config)


def test_every_method_is_measured_and_shown(made):
    config, out, (needed, fewer, _) = made
    rows = pd.read_csv(out / "results.csv")
    assert set(rows.device) == {"ours", "random", "botorch"}
    assert "stand-in" in needed.about
    regret = where(rows, measure="regret")
    assert (regret.groupby(["device", "listener"]).size() == config.answers).all()
    assert (regret.value >= 0).all()
    assert [row[:2] for row in needed.rows] == [["2", name] for name in config.methods]
    # Two listeners say nothing of others.
    cells = [row[2] for row in fewer.rows]
    assert [(cell.listeners, cell.verdict) for cell in cells] == [(2, CANNOT_BE_TOLD)] * 2
    assert (out / "tables.md").read_text().count("\n| 2 |") == 3 + 2
    assert (out / "regret.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((out / "headline.json").read_text())
    assert numbers["2/ours/answers_low"] <= numbers["2/ours/answers"]
    assert {"2/ours-random/fewer", "2/botorch/answers"} <= set(numbers)


def test_listeners_that_were_finished_are_kept(made, monkeypatch):
    config, out, tables = made
    again = out / "listeners" / "ours-2-01.seconds"
    again.unlink()
    asked = []
    real = recipe.listener_of
    monkeypatch.setattr(recipe, "listener_of", lambda *a: asked.append(a[1:]) or real(*a))
    again_made = [table.texts() for table in recipe.benchmark(config)]
    assert again_made == [table.texts() for table in tables]
    assert asked == [(2, 1)]


@pytest.mark.parametrize("surface", ["quadratic", "saturating"])
def test_nothing_is_worth_more_than_the_best(surface):
    for index in range(3):
        listener = recipe.listener_of(recipe.Config(surface=surface), 6, index)
        assert listener.worth(listener.best) == pytest.approx(1)
        worths = [listener.worth(theta) for theta in np.random.default_rng(0).uniform(size=(99, 6))]
        assert max(worths) < 1
        if surface == "quadratic":
            assert np.mean([listener.worth(one) for one in listener.others]) == pytest.approx(0.2)


def test_a_listener_chooses_the_better_and_hears_no_small_difference():
    sure, draw = Answering(noise=0.0, lapses=0.0), np.random.default_rng(0)
    listener = recipe.listener_of(recipe.Config(), 3, 0)
    best, far = (
        tuple(listener.best),
        tuple(listener.others[np.abs(listener.others - 0.5).argmax() // 3]),
    )
    assert sure.answer(listener, Comparison(best, far), 0.0, draw) == "first"
    assert sure.answer(listener, Comparison(far, best), 0.0, draw) == "second"
    assert sure.answer(listener, Comparison(best, best), 0.0, draw) == "same"
    assert sure.answer(listener, Comparison(best, best), 0.1, draw) == "first"
    lapsing = Answering(noise=0.0, lapses=1.0)
    answers = [lapsing.answer(listener, Comparison(best, far), 0, draw) for _ in range(30)]
    assert set(answers) == {"first", "second", "same"}


def test_an_aid_is_measured_on_a_true_animal_by_what_it_is_told():
    anatomy = draw_anatomy(channels=8, seed=1)
    animal = Animal(anatomy, draw_loss("HI", severity=1.2, seed=1))
    sound = calibrate(torch.randn(1, 8192, generator=torch.Generator().manual_seed(0)), 65.0)

    def amplify(sound, listener):
        return sound * 10 ** listener[:, :1]

    told = torch.tensor([[0.0], [0.5], [1.0]])
    milder = Animal(anatomy, draw_loss("HI", severity=0.4, seed=1))
    found, of_milder = restorations(amplify, [animal, milder], sound, told)
    assert found[0] == of_milder[0] == 0
    assert max(found) > 0.05
    assert found != of_milder
    # The same as without the filters that animals share.
    pair = animal.expected_counts, animal.healthy().expected_counts
    louder = {"+10 dB": sound * 10**0.5}
    aided, unaided = fidelity_and_clarity(*pair, sound, sound, louder)["+10 dB"]["fidelity"]
    assert found[1] == pytest.approx(pooled_restoration(aided, unaided), abs=1e-4)


def test_new_animals_differ_from_one_another_and_from_other_seeds():
    drawn = {seed: [simulated.new_animal(seed, n) for n in range(6)] for seed in (0, 1)}
    losses = [truth for own in drawn.values() for _, truth in own]
    assert [one["hearing"] for one in losses[:6]] == ["HI", "HI", "hidden"] * 2
    severities = [one["severity"] for one in losses if one["hearing"] == "HI"]
    assert len(set(severities)) == len(severities)
    assert min(severities) >= 0.4
    assert max(severities) <= 1.8
    frequencies = {tuple(animal.cf_hz.tolist()) for own in drawn.values() for animal, _ in own}
    assert len(frequencies) == 12


def test_the_stopping_rule_ends_a_search_where_little_is_left_to_gain():
    assert report.stopped([3.0, 0.5, 3.0, 0.5], least=1) == 2
    assert report.stopped([3.0, 0.5, 3.0, 0.5], least=3) == 4
    assert report.stopped([3.0, 0.5, 3.0], least=3) is None
    assert report.stopped([]) is None


def test_a_search_has_arrived_once_it_stays_near():
    near, far = 0.5 * report.NEAR, 2 * report.NEAR
    assert report.arrived([far, near, far, near, near]) == 4
    assert report.arrived([near, near]) == 1
    assert report.arrived([near, far]) == 3


def test_methods_are_compared_on_the_same_listeners_and_a_minimum_is_weighed():
    about = {
        "methods": ["ours", "random"],
        "parameters": [2],
        "listeners": 5,
        "seed": 1,
        "at_most": 30,
        "utility": "made up",
    }
    rows = pd.concat(
        report.rows_of(
            method,
            2,
            n,
            {
                "regret": [0.2 if i < arrives + n else 0.01 for i in range(30)],
                "gain": [0.5 if i >= 9 else 3.0 for i in range(30)] if method == "ours" else [],
            },
        )
        for method, arrives in (("ours", 8), ("random", 20))
        for n in range(5)
    )
    needed, fewer, stopping = report.tables(rows, about)
    assert [row[2] for row in needed.rows] == ["11.0", "23.0"]
    numbers = report.headlines(rows, about)
    assert 9 <= numbers["2/ours/answers_low"] <= 11 <= numbers["2/ours/answers_high"] <= 13
    # What listeners share drops out: each needs 12 more.
    ((_, _, less, _),) = fewer.rows
    assert (less.estimate, less.low, less.high, less.verdict) == (12, 12, 12, "better")
    by_least = {row[2]: row[3:] for row in stopping.rows}
    assert by_least["8"][1::2] == ["10.0", "40"]
    assert by_least["16"][1::2] == ["16.0", "100"]
    assert "40" not in by_least
    assert needed.rows[0][5] == number(report.LEAST_ANSWERS, 1)


def test_measured_restoration_is_a_listener_of_its_own(tmp_path):
    (tmp_path / "measured").mkdir()
    points = np.random.default_rng(0).uniform(size=(30, 3))
    restoration = 0.6 - ((points - 0.4) ** 2).sum(1)
    curvature = np.diag([0.5, 0.3, 0.2])
    content = {"others": points[:4], "guess": points[1], "points": points}
    content["curvature"] = curvature
    content["restoration"] = restoration
    plain = {name: value.tolist() for name, value in content.items()}
    (tmp_path / "measured" / "listener-05.json").write_text(json.dumps(plain))
    config = recipe.Config(out=str(tmp_path), measured="somewhere", parameters=[3])
    listener = recipe.listener_of(config, 3, 5)
    assert listener.worth(listener.best) == pytest.approx(1)
    assert listener.curvature[1] == (0.0, 0.3, 0.0)
    assert listener.guess == tuple(points[1])
    # The best lies between the points that were measured.
    assert listener.best == pytest.approx([0.4] * 3, abs=0.05)
    assert listener.worth(points[0]) == pytest.approx(restoration[0] / 0.6, abs=0.01)
    others = np.random.default_rng(1).uniform(size=(50, 3))
    assert max(listener.worth(theta) for theta in others) <= 1
    with pytest.raises(ValueError, match=r"has 3 parameters, got 6; set parameters to \[3\]"):
        recipe.listener_of(config, 6, 5)


def test_unknown_methods_and_sizes_of_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"methods must be some of .*, got \['grid'\]"):
        recipe.benchmark(recipe.Config(out=str(tmp_path), methods=["grid"]))
    with pytest.raises(ValueError, match=r"answers.*0 does not conform"):
        recipe.benchmark(recipe.Config(out=str(tmp_path), answers=0))
    with pytest.raises(ValueError, match="stand-ins have no audiogram"):
        recipe.benchmark(recipe.Config(out=str(tmp_path), methods=["audiogram"]))
