"""Judgements of a report hold where a result is good, and are denied where it is not."""

import pytest
import torch

from evaluation.comparison import Comparison
from recipes.reports import verdicts


def test_new_animals_come_close_to_known_ones_or_do_not():
    known = [0.6, 0.5, 0.55, 0.58]
    assert verdicts.close_to_known(known, [0.5, 0.55, 0.52, 0.6]).holds
    assert verdicts.close_to_known(known, [0.2, 0.25, 0.3, 0.22]).holds is False
    assert verdicts.close_to_known(known, [0.2, 0.6, 0.5, 0.3]).holds is None


def test_few_animals_say_nothing_of_others():
    denied = verdicts.close_to_known([0.6, 0.5], [0.1, 0.2])
    assert denied.holds is None
    assert denied.numbers.startswith("0.15 (n = 2) against 0.55 (n = 2), 0.27 [0.")
    assert verdicts.close_to_known([0.6], []).holds is None
    assert verdicts.close_to_known([-0.3] * 4, [-0.2] * 4).holds is None
    assert verdicts.close_to_known([0.5, 0.6, 0.5], [0.6] * 9).holds is None


def places(**points: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([place, 0.0]) for name, place in points.items()}


HEARING = {"n1": "NH", "n2": "NH", "n3": "NH", "mild": "HI", "hidden": "hidden", "new": "HI"}


def test_normal_animals_lie_together_and_losses_apart():
    theta = places(n1=0.0, n2=0.1, n3=0.2, mild=0.8, hidden=0.5, new=0.9)
    assert [v.holds for v in verdicts.neighbours(theta, HEARING, ["new"])] == [True, True, True]


def test_a_normal_animal_among_the_impaired_is_named():
    theta = places(n1=0.0, n2=0.1, n3=0.78, mild=0.8, hidden=0.5, new=0.45)
    together, apart, alike = verdicts.neighbours(theta, HEARING, ["new"])
    assert [together.holds, apart.holds, alike.holds] == [False, False, False]
    assert "n3 to mild 0.02" in together.numbers
    assert "new to hidden 0.05" in alike.numbers


def test_too_few_animals_say_nothing():
    theta = places(n1=0.0, mild=0.8, new=0.9)
    found = verdicts.neighbours(theta, HEARING | {"new": "hidden"}, ["new"])
    assert [verdict.holds for verdict in found] == [None, None, None]


def epochs(*validation: float, separation: float = 5.0) -> list[dict]:
    return [
        {"cross_entropy": 1 / (epoch + 1), "validation": value, "separation": separation}
        for epoch, value in enumerate(validation)
    ]


def test_training_falls_and_does_not_rise_again():
    assert [v.holds for v in verdicts.learned(epochs(0.9, 0.8, 0.8))] == [True, True, True]
    fall, rise, _ = verdicts.learned(epochs(0.9, 0.8, 0.85))
    assert (fall.holds, rise.holds) == (True, False)
    assert rise.numbers == "lowest in epoch 2 of 3; at the end 6.2 % above that"
    assert not verdicts.learned(epochs(0.9, 0.8, separation=2.0))[2].holds
    assert not verdicts.learned(epochs(0.9, 0.95))[0].holds


def test_predictions_follow_the_truth_or_do_not():
    truth = torch.tensor([1.0, 2.0, 4.0])
    assert verdicts.follows({"a": (truth + 0.5, truth)}).holds
    denied = verdicts.follows({"a": (truth + 0.5, truth), "b": (truth - 0.68, truth)})
    assert not denied.holds
    assert denied.numbers == "a 12 %, b 17 %"


@pytest.mark.parametrize(
    ("less", "sounds", "holds"),
    [(0.1, 12, True), (-0.1, 12, False), (0.1, 4, None), (0.0, 12, None)],
)
def test_a_fit_is_worth_it_where_it_predicts_better(less, sounds, holds):
    fitted = [0.4 + 0.01 * (-1) ** n for n in range(sounds)]
    normal = [0.4 - less] * sounds
    found = verdicts.worth_fitting({"new": (fitted, normal, list(range(sounds)))})
    assert found.holds is holds
    assert f"n = {sounds} sounds" in found.numbers
    assert verdicts.worth_fitting({"new": ([], [], [])}).holds is None
    # Sounds of one voice are one.
    one = verdicts.worth_fitting({"new": (fitted, normal, ["anna"] * sounds)})
    assert one.holds is None


def test_alignment_is_good_within_a_fraction_of_an_octave():
    assert verdicts.aligned(1.5, 0.1).holds
    assert not verdicts.aligned(1.5, 0.4).holds
    assert not verdicts.aligned(0.1, 0.2).holds


def test_training_of_an_aid_leaves_little():
    def history(*left):
        return [{"compensation": c, "denoising": d} for c, d in left]

    assert verdicts.gained(history((1.0, 1.0), (0.5, 0.6), (0.5, None)), 2).holds
    assert not verdicts.gained(history((0.5, 0.5), (0.7, 1.0), (0.7, 0.9)), 2).holds
    assert verdicts.gained(history((1.0, 1.0), (0.5, None)), 1).holds is None


def test_soft_speech_gains_more_where_sensitivity_is_lost():
    lost = {"new": torch.tensor([0.0, 40.0]), "hidden": torch.tensor([0.0, 5.0])}
    soft_most = torch.tensor([[0.0, 20.0], [0.0, 15.0], [0.0, 10.0]])
    gains = {"new": soft_most, "hidden": soft_most}
    levels = (50.0, 65.0, 80.0)
    held = verdicts.compresses(gains, lost, levels)
    assert held.holds
    assert held.numbers == "new 20.0 dB and 10.0 dB; hidden has lost so much nowhere"
    assert not verdicts.compresses({"new": soft_most.flip(0)}, lost, levels).holds
    assert not verdicts.compresses({"new": soft_most / 20}, lost, levels).holds
    assert verdicts.compresses({"hidden": soft_most}, lost, levels).holds is None


def test_speech_stands_out_where_its_pauses_are_made_dark():
    speech = torch.randn(8192, generator=torch.Generator().manual_seed(0)) * 0.02
    speech[4096:] *= 1e-3
    noise = torch.randn(8192, generator=torch.Generator().manual_seed(1)) * 0.02
    gain = torch.ones(8192)
    gain[4096:] = 0.1
    noisy = verdicts.speech_over_pauses_db(speech + noise, speech)
    reduced = verdicts.speech_over_pauses_db(gain * (speech + noise), speech)
    assert noisy == pytest.approx(3, abs=0.5)
    assert reduced == pytest.approx(noisy + 20, abs=0.01)
    many = range(12)
    found = {"NAL-R": [noisy + n / 9 for n in many], "ours": [reduced + n / 9 for n in many]}
    assert verdicts.stands_out(found, many, "ours", "NAL-R").holds
    assert verdicts.stands_out(found, many, "NAL-R", "ours").holds is False
    # Sentences of one voice say nothing of others.
    assert verdicts.stands_out(found, [0] * 12, "ours", "NAL-R").holds is None
    near = {"NAL-R": [0.0] * 12, "ours": [0.8 + 0.4 * (n % 2) for n in many]}
    assert verdicts.stands_out(near, many, "ours", "NAL-R").holds is None


def told(estimate: float, verdict: str = "", half: float = 0.03, sounds: int = 12) -> Comparison:
    """A comparison of one listener with the verdict that is wanted of it."""
    one = Comparison(estimate, estimate - half, estimate + half, 0.0, 1, 1, sounds)
    assert not verdict or one.verdict == verdict
    return one


STEPS = {
    "better": told(0.2, "better"),
    "worse": told(-0.2, "worse"),
    "cannot be told": told(0.0, "cannot be told"),
}


def test_an_aid_restores_most_only_if_it_is_so_for_every_listener():
    others = ["no aid", "NAL-R"]
    both = {"a": {"no aid": STEPS["better"], "NAL-R": STEPS["better"]}}
    held = verdicts.restores_most(both, others, "ours")
    assert held.holds
    assert held.wanted == "for every listener ours restores more than no aid and NAL-R"
    assert "a (n = 12 sounds): +0.20 [0.17, 0.23] to no aid, better" in held.numbers
    open_ = both | {"b": {"no aid": STEPS["better"], "NAL-R": STEPS["cannot be told"]}}
    assert verdicts.restores_most(open_, others, "ours").holds is None
    denied = open_ | {"c": {"no aid": STEPS["better"], "NAL-R": STEPS["worse"]}}
    assert verdicts.restores_most(denied, others, "ours").holds is False
    # What could not be measured for a listener is left out.
    assert verdicts.restores_most(both | {"b": {"NAL-R": None}}, others, "ours").holds
    assert verdicts.restores_most({}, others, "ours").holds is None


def test_a_model_whose_opinion_of_its_aid_is_wrong_is_seen():
    assert verdicts.opinion({"a": told(0.05), "b": told(-0.06)}).holds
    denied = verdicts.opinion({"a": told(-0.1), "b": told(0.3)})
    assert denied.holds is False
    assert denied.numbers.startswith("a −0.10 [−0.13, −0.07] (n = 12 sounds); b +0.30")
    assert denied.numbers.endswith("mean of magnitudes 0.20")
    # Thinking too little of an aid is an error, too.
    assert verdicts.opinion({"a": told(-0.3)}).holds is False
    assert verdicts.opinion({"a": told(0.09)}).holds is None
    assert verdicts.opinion({"a": told(0.0, sounds=4)}).holds is None
    assert verdicts.opinion({}).holds is None
