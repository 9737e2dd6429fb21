"""Tests of a clinic tell losses apart, and what they say of θ is as sure as it is said."""

import dataclasses

import pytest
import torch

from icsim.models.clinical_prior import ClinicalPrior, held_out, posterior, read, save
from icsim.simulation.animal import Animal, Loss, draw_anatomy, draw_loss
from icsim.simulation.clinic import ABR, GAP, NORMAL, SPEECH, TESTS, THRESHOLDS, TONE, measured

BRAIN = draw_anatomy(64, 0, coverage_spread=0.0)


@pytest.fixture(scope="module")
def healthy():
    return measured(Animal(BRAIN))


def test_the_average_healthy_animal_reaches_what_is_normal(healthy):
    assert set(healthy) == set(TESTS)
    assert healthy[ABR] == pytest.approx(0)
    for name, normal in NORMAL.items():
        assert healthy[name] == pytest.approx(normal, abs=0.6)


def test_lost_synapses_show_in_all_tests_but_thresholds(healthy):
    hidden = measured(Animal(BRAIN, Loss(synaptopathy=0.8)))
    assert all(hidden[name] == healthy[name] for name in THRESHOLDS)
    assert hidden[ABR] < healthy[ABR] - 3
    for name in (TONE, GAP, SPEECH):
        assert hidden[name] > healthy[name] + 0.3


def test_a_visible_loss_raises_thresholds_and_tests_have_errors(healthy):
    loss = draw_loss("HI", 1.0, 1)
    severe = measured(Animal(BRAIN, loss))
    assert sum(severe[name] - healthy[name] for name in THRESHOLDS) > 60
    generator = torch.Generator().manual_seed(1)
    noisy = measured(Animal(BRAIN, loss), generator)
    assert noisy[GAP] != severe[GAP]


def planted(count: int = 400) -> ClinicalPrior:
    """Listeners in whom one test shows a loss, and another lost synapses, of which θ is made."""
    draw = torch.Generator().manual_seed(0)
    loss, synapses = torch.rand(2, count, generator=draw)
    noise = 0.05 * torch.randn(2, count, generator=draw)
    return ClinicalPrior(
        model="m",
        tests={"threshold": loss + noise[0], "gap": synapses + noise[1]},
        errors={"threshold": 0.05, "gap": 0.05},
        logits=torch.stack([4 * loss - 2, 2 - 4 * synapses], 1),
        covariance=1e-4 * torch.eye(2).expand(count, 2, 2),
        truth={"loss": loss, "synapses": synapses},
    )


def test_what_was_not_measured_stays_open():
    alone = posterior(planted(), {"threshold": 0.7})
    assert alone.open == ["synapses"]
    assert alone.quantities["loss"][0] == pytest.approx(0.7, abs=0.05)
    both = posterior(planted(), {"threshold": 0.7, "gap": 0.2})
    assert both.open == []
    expected = torch.tensor([0.8, 1.2]).sigmoid()
    assert (both.theta - expected).abs().max() < 0.05
    wide, narrow = (one.covariance.diagonal().sqrt() for one in (alone, both))
    assert wide[1] > 3 * narrow[1]


def test_it_is_as_sure_as_it_says():
    prior = planted()
    for_others = dataclasses.replace(
        prior,
        tests={k: v[50:] for k, v in prior.tests.items()},
        truth={k: v[50:] for k, v in prior.truth.items()},
        logits=prior.logits[50:],
        covariance=prior.covariance[50:],
    )
    away = []
    for n in range(50):
        said = posterior(for_others, {k: v[n].item() for k, v in prior.tests.items()})
        for name, values in prior.truth.items():
            mean, deviation, _ = said.quantities[name]
            away.append((values[n].item() - mean) / deviation)
    assert 0.7 < torch.tensor(away).square().mean().sqrt() < 1.3


def test_listeners_who_are_left_out_say_how_much_tests_say():
    by_one, by_both = (
        held_out(planted(60), tests) for tests in (["threshold"], ["threshold", "gap"])
    )
    assert by_one["synapses"][0] < 0.3 < 0.8 < by_both["synapses"][0]
    assert by_one["θ"][0] < 0.8 < by_both["θ"][0]
    assert all(0.5 < scaled < 1.6 for _, scaled in by_both.values())


def test_a_table_is_read_as_written_and_nothing_else_is(tmp_path):
    save(tmp_path / "prior.json", planted(20))
    again = read(tmp_path / "prior.json", "m")
    assert torch.equal(again.logits, planted(20).logits)
    with pytest.raises(ValueError, match="is of another model"):
        read(tmp_path / "prior.json", "other")
    (tmp_path / "other.json").write_text('{"theta": [0.5]}')
    with pytest.raises(ValueError, match="no table of simulated listeners"):
        read(tmp_path / "other.json")
    with pytest.raises(ValueError, match="tests guess; those that say something: threshold, gap"):
        posterior(again, {"guess": 1.0})
