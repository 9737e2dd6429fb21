"""Simulated animals are who their members say, and what is stored is what they answered."""

import dataclasses

import pytest
import torch

from icsim.seeds import seeded
from icsim.simulation.animal import animal_from, draw_loss
from icsim.simulation.cochlea import filter_sound
from icsim.sound import Sound, calibrate
from icsim.store import Cohort
from recipes import make_cohort
from recipes.make_cohort import Config, Member

MEMBERS = [
    Member("normal", "NH"),
    Member("lost", "hidden", role="unseen"),
    Member("strong", "HI", severity=1.7),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three animals that heard half a second: the configuration and the cohort."""
    out = tmp_path_factory.mktemp("cohort")
    config = Config(str(out), MEMBERS, channels=6, hours=8.0, scatter=0.3, seed=3)
    noise = torch.randn(3, 4096, generator=torch.Generator().manual_seed(0))
    sounds = [
        Sound(split, "noise", split, split, calibrate(sound, 70.0))
        for split, sound in zip(("train", "validation", "test"), noise, strict=True)
    ]
    return config, Cohort.open(make_cohort.make_cohort(config, sounds))


def test_animals_are_those_of_the_configuration(made):
    config, cohort = made
    animals = [cohort.animal(name) for name in ("normal", "lost", "strong")]
    assert [animal.status for animal in animals] == ["NH", "HI", "HI"]
    assert [animal.role for animal in animals] == ["seen", "unseen", "seen"]
    for number, member in enumerate(config.members):
        truth = cohort.truth(member.name)
        loss = draw_loss(member.hearing, member.severity, 3000 + number)
        assert animal_from(truth).loss == loss
        assert truth["anatomy"]["scatter"] == 0.3
    anatomies = [animal_from(cohort.truth(name)).anatomy for name in cohort.animals()]
    assert len({dataclasses.replace(one, seed=0) for one in anatomies}) == 3


def test_answers_are_those_of_the_animal_at_its_hour_each_trial_anew(made):
    config, cohort = made
    for number, member in enumerate(config.members):
        recording, animal = cohort.animal(member.name), animal_from(cohort.truth(member.name))
        trials = dict.fromkeys(range(3), 0)
        for which, shown in enumerate(recording.presentations):
            draw = seeded(config.seed, number, shown.sound, trials[shown.sound])
            trials[shown.sound] += 1
            sound = filter_sound(cohort.pressure(shown.sound)[None])
            answer = animal.sample_counts(sound, shown.time_h, draw)[0].T
            assert torch.equal(recording.counts(which), answer)
        assert list(trials.values()) == [1, 2, 2]


def test_each_animal_has_an_order_of_its_own_and_the_whole_time(made):
    config, cohort = made
    shown = [cohort.animal(name).presentations for name in cohort.animals()]
    assert len({tuple(one.sound for one in each) for each in shown}) == 3
    for each in shown:
        hours = [one.time_h for one in each]
        assert hours == sorted(hours)
        assert hours[0] == 0
        assert config.hours - 0.01 < hours[-1] < config.hours


def test_twins_hear_alike_in_different_brains():
    twins = [*MEMBERS, Member("twin", "HI", severity=1.7, twin_of="strong")]
    config = Config("nowhere", twins, channels=6, seed=3)
    first, second = (make_cohort.simulated_animal(config, number) for number in (2, 3))
    assert first.loss == second.loss
    assert first.anatomy.quartiles_hz != second.anatomy.quartiles_hz


@pytest.mark.parametrize("of", ["nobody", "normal", "twin"])
def test_twins_of_others_are_refused(of):
    twins = [*MEMBERS, Member("twin", "HI", severity=1.7, twin_of=of)]
    with pytest.raises(ValueError, match=f"twin_of {of} must be .*: strong"):
        make_cohort.ready(Config("nowhere", twins))
