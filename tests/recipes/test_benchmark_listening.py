"""The benchmark of fitting by ear at the smallest size, and what its numbers mean."""

import json

import numpy as np
import pytest
import torch

from compensation.preference import Comparison
from evaluation.comparison import CANNOT_BE_TOLD
from evaluation.neural import fidelity_and_clarity, pooled_restoration
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.sound import calibrate
from recipes.benchmarks import listening as recipe
from recipes.running.commands import parse

TINY = "recipes/configs/benchmarks/listening/tiny.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The benchmark of size tiny, run once: its configuration, folder and summary."""
    out = tmp_path_factory.mktemp("listening") / "tiny"
    config = parse(recipe.Config, ["--config", TINY, "--out", str(out)])
    return config, out, recipe.benchmark(config)


def test_every_method_is_measured_and_shown(made):
    config, out, summary = made
    assert json.loads((out / "summary.json").read_text()) == summary
    assert [row["method"] for row in summary["rows"]] == ["ours", "random", "botorch"]
    assert "stand-in" in summary["utility"]
    for row in summary["rows"]:
        assert len(row["regret"]) == config.answers
        assert all(missing >= 0 for missing in row["regret"])
        assert row["interval"][0] <= row["answers"] <= row["interval"][1]
    # Two listeners say nothing of others.
    told = [(row["method"], row["listeners"], row["verdict"]) for row in summary["comparisons"]]
    assert told == [("random", 2, CANNOT_BE_TOLD), ("botorch", 2, CANNOT_BE_TOLD)]
    assert len(summary["each"]) == 3 * config.listeners
    assert (out / "table.md").read_text().count("\n| 2 |") == 3 + 2
    assert (out / "regret.png").read_bytes().startswith(b"\x89PNG")


def test_listeners_that_were_finished_are_kept(made, monkeypatch):
    config, out, summary = made
    again = out / "listeners" / "ours-2-01.seconds"
    again.unlink()
    asked = []
    real = recipe.listener_of
    monkeypatch.setattr(recipe, "listener_of", lambda *a: asked.append(a[1:]) or real(*a))
    assert recipe.benchmark(config) == summary
    assert asked == [(2, 1)]


@pytest.mark.parametrize("surface", ["bowl", "dome"])
def test_nothing_is_worth_more_than_the_best(surface):
    for index in range(3):
        listener = recipe.listener_of(recipe.Config(surface=surface), 6, index)
        assert listener.worth(listener.best) == pytest.approx(1)
        worths = [listener.worth(theta) for theta in np.random.default_rng(0).uniform(size=(99, 6))]
        assert max(worths) < 1
        if surface == "bowl":
            assert np.mean([listener.worth(one) for one in listener.known]) == pytest.approx(0.2)


def test_a_listener_chooses_the_better_and_hears_no_small_difference():
    config = recipe.Config(noise=0.0, lapses=0.0)
    listener, draw = recipe.listener_of(config, 3, 0), np.random.default_rng(0)
    best, far = (
        tuple(listener.best),
        tuple(listener.known[np.abs(listener.known - 0.5).argmax() // 3]),
    )
    assert recipe.listen(config, listener, Comparison(best, far), 0.0, draw) == "first"
    assert recipe.listen(config, listener, Comparison(far, best), 0.0, draw) == "second"
    assert recipe.listen(config, listener, Comparison(best, best), 0.0, draw) == "same"
    assert recipe.listen(config, listener, Comparison(best, best), 0.1, draw) == "first"
    lapsing = recipe.Config(noise=0.0, lapses=1.0)
    answers = [recipe.listen(lapsing, listener, Comparison(best, far), 0, draw) for _ in range(30)]
    assert set(answers) == {"first", "second", "same"}


def test_an_aid_is_measured_on_a_true_animal_by_what_it_is_told():
    anatomy = draw_anatomy(channels=8, seed=1)
    animal = Animal(anatomy, draw_loss("HI", severity=1.2, seed=1))
    sound = calibrate(torch.randn(1, 8192, generator=torch.Generator().manual_seed(0)), 65.0)

    class Amplifier(torch.nn.Module):
        def process(self, sound, listener, noise_reduction, gain):
            return sound * 10 ** (gain * listener[:, :1])

    told = torch.tensor([[0.0], [0.5], [1.0]])
    milder = Animal(anatomy, draw_loss("HI", severity=0.4, seed=1))
    found, of_milder = recipe.restorations(Amplifier(), [animal, milder], sound, told)
    assert found[0] == of_milder[0] == 0
    assert max(found) > 0.05
    assert found != of_milder
    # The same as without the filters that animals share.
    pair = animal.expected_counts, animal.healthy().expected_counts
    louder = {"+10 dB": sound * 10**0.5}
    aided, unaided = fidelity_and_clarity(*pair, sound, sound, louder)["+10 dB"]["fidelity"]
    assert found[1] == pytest.approx(pooled_restoration(aided, unaided), abs=1e-4)


def test_new_animals_differ_from_one_another_and_from_other_seeds():
    drawn = {seed: [recipe.new_animal(seed, n) for n in range(6)] for seed in (0, 1)}
    losses = [truth for own in drawn.values() for _, truth in own]
    assert [one["hearing"] for one in losses[:6]] == ["HI", "HI", "hidden"] * 2
    severities = [one["severity"] for one in losses if one["hearing"] == "HI"]
    assert len(set(severities)) == len(severities)
    assert min(severities) >= 0.4
    assert max(severities) <= 1.8
    frequencies = {tuple(animal.cf_hz.tolist()) for own in drawn.values() for animal, _ in own}
    assert len(frequencies) == 12


def test_the_stopping_rule_ends_a_search_where_little_is_left_to_gain():
    assert recipe.stopped([3.0, 0.5, 3.0, 0.5], least=1) == 2
    assert recipe.stopped([3.0, 0.5, 3.0, 0.5], least=3) == 4
    assert recipe.stopped([3.0, 0.5, 3.0], least=3) is None
    assert recipe.stopped([None] * 50) is None


def test_a_search_has_arrived_once_it_stays_near():
    near, far = 0.5 * recipe.NEAR, 2 * recipe.NEAR
    assert recipe.arrived([far, near, far, near, near]) == 4
    assert recipe.arrived([near, near]) == 1
    assert recipe.arrived([near, far]) == 3


def test_methods_are_compared_on_the_same_listeners_and_a_minimum_is_weighed():
    config = recipe.Config(methods=["ours", "random"], parameters=[2], listeners=5, answers=30)
    found = [
        {
            "method": method,
            "parameters": 2,
            "listener": n,
            "regret": [0.2 if i < arrives + n else 0.01 for i in range(30)],
            "gains": [0.5 if i >= 9 else 3.0 for i in range(30)]
            if method == "ours"
            else [None] * 30,
        }
        for method, arrives in (("ours", 8), ("random", 20))
        for n in range(5)
    ]
    summary = recipe.summarise(config, found)
    ours, random = summary["rows"]
    assert (ours["answers"], random["answers"]) == (11, 23)
    assert 9 <= ours["interval"][0] <= 11 <= ours["interval"][1] <= 13
    (fewer,) = summary["comparisons"]
    # What listeners share drops out: each needs 12 more.
    assert (fewer["difference"], fewer["interval"], fewer["verdict"]) == (12, [12, 12], "better")
    by_least = {row["least"]: row for row in summary["stopping"] if row["method"] == "ours"}
    assert (by_least[8]["answers"], by_least[8]["within"]) == (10, 0.4)
    assert (by_least[16]["answers"], by_least[16]["within"]) == (16, 1)
    assert by_least[40]["stopped"] == 0
    assert ours["finished"] == recipe.LEAST_ANSWERS


def test_measured_restoration_is_a_listener_of_its_own(tmp_path):
    (tmp_path / "measured").mkdir()
    points = np.random.default_rng(0).uniform(size=(30, 3))
    restoration = 0.6 - ((points - 0.4) ** 2).sum(1)
    shape = np.diag([0.5, 0.3, 0.2])
    content = {"known": points[:4], "guess": points[1], "points": points, "shape": shape}
    content["restoration"] = restoration
    plain = {name: value.tolist() for name, value in content.items()}
    (tmp_path / "measured" / "listener-05.json").write_text(json.dumps(plain))
    config = recipe.Config(out=str(tmp_path), measured="somewhere", parameters=[3])
    listener = recipe.listener_of(config, 3, 5)
    assert listener.worth(listener.best) == pytest.approx(1)
    assert listener.shape[1] == (0.0, 0.3, 0.0)
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
