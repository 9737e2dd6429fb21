"""What is learned from what: no test sound, no truth, no stranger; and which epoch is kept."""

import dataclasses
import itertools
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from compensation import hearing
from compensation.auditory import AuditoryModel
from compensation.listener import AUDIOGRAM_HZ, from_audiogram
from compensation.load import load_aid
from compensation.masks import Masks, MasksConfig
from compensation.objective import discrepancy_left, effort
from compensation.training import BandLevels, tasks, training_terms
from icsim import cohort_alignment
from icsim.channel_gains import broad
from icsim.cohort_alignment import likeness, octave_errors, reference_brains
from icsim.fits import Fit, read_fit
from icsim.frames import Frames
from icsim.loss import ResponseLoss
from icsim.models import listener_cost, matching, scoring
from icsim.models.conditions import ThetaConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.facts import ModelFacts, cohort_facts
from icsim.models.listener_fit import FittedListener, baselines, first_frames, fit_listener
from icsim.models.listener_posterior import Posterior
from icsim.models.load import load_model
from icsim.models.response import ResponseModel
from icsim.models.start import config_for
from icsim.models.subjects import Subjects
from icsim.objective import listener_divergence, threshold_penalty
from icsim.recording import UNMATCHED, AnimalRecording
from icsim.seeds import seeded
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.material import Material
from icsim.sound import level
from icsim.store import Cohort
from icsim.threshold_shifts import audiogram_of, audiograms_of
from icsim.weights import fingerprint, load_tensors
from recipes import align, fit_theta, score_ic, train_compensation, train_ic
from recipes.benchmarks import judgement
from recipes.benchmarks.ic_tasks import best_matching
from tests.planted import (
    FOLLOWED,
    MISSED,
    NORMAL,
    SILENCE,
    SPLITS,
    THRESHOLDS_DB_SPL,
    UNSEEN,
    planted_cohort,
)

SEEN = sorted(set(FOLLOWED) - set(UNSEEN))

RELIABLE = 0.3
"""Above what two presentations of two short sounds have in common by chance."""

ENCODER = SincNetConfig(filters=8, kernels=8, size=8, bottleneck=8, input_scale=20.0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> str:
    """A planted cohort, aligned."""
    path = tmp_path_factory.mktemp("planted") / "cohort.zarr"
    planted_cohort(path)
    align.align(align.Config(str(path), reliable=RELIABLE))
    return str(path)


class Reads:
    """Everything that is read of a cohort, as long as it is watched."""

    def __init__(self, watch: pytest.MonkeyPatch):
        self.sounds: Counter[str] = Counter()
        """By split."""
        self.answers: Counter[tuple[str, str]] = Counter()
        """By animal and split."""
        self.latest_h = 0.0
        """When the latest answer was given [h]."""
        self.silence = 0
        """How often silence, or an answer to it, was read."""
        self.truths: list[str] = []
        pressure, block, truth = Cohort.pressure, AnimalRecording.block, Cohort.truth

        def sound(cohort, index, *where):
            self.sounds[SPLITS[index]] += 1
            self.silence += index == SILENCE
            return pressure(cohort, index, *where)

        def answer(animal, which, *where):
            shown = animal.presentations[which]
            self.answers[animal.name, SPLITS[shown.sound]] += 1
            self.silence += shown.sound == SILENCE
            self.latest_h = max(self.latest_h, shown.time_h)
            return block(animal, which, *where)

        def revealed(cohort, name):
            self.truths.append(name)
            return truth(cohort, name)

        watch.setattr(Cohort, "pressure", sound)
        watch.setattr(AnimalRecording, "block", answer)
        watch.setattr(Cohort, "truth", revealed)


@pytest.fixture
def reads(monkeypatch) -> Reads:
    return Reads(monkeypatch)


@dataclasses.dataclass
class Training:
    """A training of a model of θ, and what was seen of it."""

    config: train_ic.Config
    path: Path
    reads: Reads
    epochs: list[dict]
    """Weights at the end of each."""
    history: list[dict]
    batches: list[tuple[list[int], list[int]]]
    """Frames and animals of each step."""


def trained(config: train_ic.Config, validation: list[float] | None = None) -> Training:
    """Train; validation can be made up."""
    epochs, batches, work, read = [], [], train_ic.validate, train_ic._read

    def validate(run, facts):
        epochs.append({name: value.clone() for name, value in run.plain.state_dict().items()})
        return validation[len(epochs) - 1] if validation else work(run, facts)

    def reading(frames, job):
        if SPLITS[frames.sound_of(0)] == "train":
            batches.append(job)
        return read(frames, job)

    with pytest.MonkeyPatch.context() as watch:
        watch.setattr(train_ic, "validate", validate)
        watch.setattr(train_ic, "_read", reading)
        watch.setattr(train_ic, "_log", lambda *_: None)
        reads = Reads(watch)
        path = train_ic.train(config)
    _, progress = load_tensors(path.parent / "state.safetensors")
    return Training(config, path, reads, epochs, progress["history"], batches)


@pytest.fixture(scope="module")
def training(cohort, tmp_path_factory) -> Training:
    """Three epochs of few animals a step, the first of them with the threshold penalty."""
    config = train_ic.Config(
        cohort,
        str(tmp_path_factory.mktemp("ic")),
        encoder=ENCODER,
        condition=ThetaConfig(parameters=2, fusion_size=4),
        batch=4,
        epochs=3,
        learning_rate=5e-3,
        threshold_epochs=1,
        rematch_epochs=[1],
        animals_a_step=2,
        precision="no",
    )
    return trained(config)


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["template", "permutation"])
def test_brains_are_aligned_by_answers_to_training_and_validation_sounds(cohort, reads, method):
    align.align(align.Config(cohort, method=method, name="watched"))
    every = {(name, split) for name in FOLLOWED for split in ("train", "validation")}
    assert set(reads.answers) == every
    assert not reads.silence
    assert not reads.sounds
    assert not reads.truths


def test_a_model_is_trained_on_seen_animals_without_test_sounds(training):
    assert set(training.reads.sounds) == {"train", "validation"}
    assert set(training.reads.answers) == {(n, s) for n in SEEN for s in ("train", "validation")}
    assert not training.reads.truths


def test_gradients_come_from_training_sounds_and_the_prior_of_channels_from_validation_sounds(
    training, cohort, monkeypatch, tmp_path
):
    read_by: dict[str, Reads] = {}

    def watched(name, work):
        def doing(*inputs):
            with pytest.MonkeyPatch.context() as watch:
                read_by[name] = Reads(watch)
                return work(*inputs)

        return doing

    for name in ("validate", "note_channel_prior"):
        monkeypatch.setattr(train_ic, name, watched(name, getattr(train_ic, name)))
    whole = Reads(monkeypatch)
    trained(dataclasses.replace(training.config, out=str(tmp_path), epochs=1))
    assert {split for _, split in read_by["validate"].answers} == {"validation"}
    assert {split for _, split in read_by["note_channel_prior"].answers} == {"validation"}
    elsewhere = whole.answers - read_by["validate"].answers - read_by["note_channel_prior"].answers
    assert {split for _, split in elsewhere} == {"train"}


def test_a_stranger_is_fitted_to_training_sounds_of_the_first_hours_alone(
    training, cohort, reads, tmp_path
):
    config = fit_theta.Config(
        cohort, str(training.path), str(tmp_path), "stranger", first_hours=4.0, seconds=2.0
    )
    batch = first_frames(Cohort.open(cohort), "stranger", first_hours=4.0, seconds=2.0)
    assert set(reads.answers) == {("stranger", "train")}
    assert set(reads.sounds) == {"train"}
    assert reads.latest_h <= 4.0
    assert bool((batch["hours"] <= 4.0 + 1e-3).all())
    fit = fit_theta.fit_theta(dataclasses.replace(config, dense=4))
    assert set(reads.answers) == {("stranger", "train")}
    assert set(reads.sounds) == {"train"}
    assert not reads.truths
    # What is stored is the fit with gains of channels, and its own uncertainty.
    model, facts = load_model(training.path)
    matching = Cohort.open(cohort).animal("stranger").alignment().matching
    fitted = fit_listener(model, batch, matching, facts.channel_prior, starts=2)
    assert fit["theta"] == pytest.approx(fitted.theta.tolist())
    assert fit["matching"] == matching.tolist()
    assert fit["channel_gains"] == pytest.approx(fitted.all_gains().numpy())
    assert fit["covariance"] == pytest.approx(fitted.posterior.theta_covariance().numpy())
    assert sum(mode["weight"] for mode in fit["modes"]) == pytest.approx(1.0)
    assert fit["modes"][0]["theta"] == fit["theta"]
    drift = read_fit(tmp_path / "stranger.json").drift
    assert torch.allclose(drift.shift, fitted.posterior.drift().shift)
    # No known listener costs less, and the first evaluation is one of them.
    assert fit["nats"]["fit"] <= fit["nats"]["best seen animal"] + 1e-4
    assert fit["course"][-1] <= fit["course"][0]


def test_no_more_sound_is_used_for_a_fit_than_was_asked_for(cohort):
    frame_s = 8192 / 24414.0625
    for most, each in ((3, 9), (9, 1)):
        chosen = first_frames(
            Cohort.open(cohort),
            "stranger",
            first_hours=10.0,
            seconds=(most + 0.5) * frame_s,
            seconds_a_sound=(each + 0.5) * frame_s,
        )
        sounds = chosen["sound_index"].tolist()
        assert len(sounds) == min(most, each * SPLITS.count("train"))
        assert max(Counter(sounds).values()) <= each


def test_channels_that_are_set_apart_get_no_gains():
    gains, matching = 2 * torch.eye(5)[:2], torch.tensor([4, UNMATCHED, 0])
    mode = Posterior(None, torch.zeros(4), torch.eye(4), gains, None, 0.0, ())
    fitted = FittedListener([mode], None, None, matching, broad(5))
    assert torch.equal(fitted.all_gains(), torch.stack([gains[0], broad(5).mean, gains[1]]))


def test_a_fit_is_shown_beside_the_mean_and_the_best_of_seen_animals():
    class Fitted:
        posterior = Posterior(None, torch.tensor([0.2]), torch.eye(1), None, None, 0.0, ())

        def costs(self, states):
            return (states[:, 0] - 0.2).abs()

    nats = baselines(Fitted(), torch.tensor([[0.9], [0.3]]), ["far", "near"])
    assert nats == {
        "fit": 0.0,
        "mean of the seen animals": pytest.approx(0.4),
        "best seen animal": pytest.approx(0.1),
        "name of the best": "near",
    }


def test_scores_are_of_test_sounds_at_the_hours_at_which_they_were_played(
    training, cohort, reads, monkeypatch
):
    hours, channels = [], set()
    expect, explain = scoring.expect, scoring.feve

    def expected(model, facts, listener, latent, time):
        hours.append(time.item())
        return expect(model, facts, listener, latent, time)

    def explained(expected, counts):
        channels.add(counts.shape[1])
        return explain(expected, counts)

    monkeypatch.setattr(scoring, "expect", expected)
    monkeypatch.setattr(scoring, "feve", explained)
    scores = score_ic.score_ic(score_ic.Config(cohort, str(training.path)))
    assert list(scores) == SEEN
    assert set(reads.answers) == {(name, "test") for name in SEEN}
    assert set(reads.sounds) == {"test"}
    assert not reads.truths
    animals = [Cohort.open(cohort).animal(name) for name in SEEN]
    played = [p.time_h for a in animals for p in a.presentations if SPLITS[p.sound] == "test"]
    assert sorted(hours) == pytest.approx(sorted(played))
    assert channels == {4}, "channels that are set apart are not scored"


@pytest.mark.parametrize("alignment", ["default", "permutation"])
def test_the_best_slots_are_found_by_validation_sounds_alone(training, cohort, reads, alignment):
    model, _ = load_model(training.path)
    opened, theta = Cohort.open(cohort), model.listeners.at()[0].detach()
    stored = opened.animal("stranger").alignment("default").matching
    best = best_matching(model, opened, "stranger", theta, stored, alignment)
    assert set(reads.answers) == {("stranger", "validation")}
    assert not reads.truths
    kept = stored != UNMATCHED
    assert torch.equal(best != UNMATCHED, kept)
    frames, cost = Frames(opened, ["stranger"], "validation"), 0
    for frames.epoch in range(2):  # every sound was heard twice
        batch = frames.read(range(len(frames)))
        answers = batch["counts"][:, 0]
        subject = Subjects(theta=theta[None, None])
        cost = cost + matching.channel_costs(model, batch["sound"], answers, subject)[kept]
    least = cost.min(1).values.sum()
    paid, paid_as_aligned = (cost.gather(1, m[kept, None]).sum() for m in (best, stored))
    if alignment == "default":
        torch.testing.assert_close(paid, least)
    else:
        assert len(best[kept].unique()) == int(kept.sum()) == len(stored[kept].unique())
    assert least <= paid <= paid_as_aligned


def test_all_unseen_animals_are_fitted_and_no_other(cohort, monkeypatch):
    monkeypatch.setattr(fit_theta, "fit_theta", lambda config: config.animal)
    assert fit_theta.fit_animals(fit_theta.Config(cohort, "model", "out")) == list(UNSEEN)


@pytest.mark.parametrize("told", ["theta", "audiogram"])
def test_an_aid_is_trained_on_training_sounds_and_asks_no_animal(
    training, cohort, reads, tmp_path, monkeypatch, told
):
    monkeypatch.setattr(train_compensation, "_log", lambda *_: None)
    config = train_compensation.Config(
        cohort,
        str(training.path),
        str(tmp_path),
        listener=told,
        masks=MasksConfig(bands=4, width=4, layers=1),
        steps=2,
        batch=2,
        excerpt_s=0.3,
    )
    _, facts = load_aid(train_compensation.train(config))
    assert facts.listener == told
    assert set(reads.sounds) == {"train"}
    assert not reads.silence
    assert not reads.answers
    assert not reads.truths
    normal = hearing.learned(str(training.path))[0].normal
    assert torch.tensor(facts.healthy).equal(normal)


# --- who is normal ------------------------------------------------------------------------------


def test_the_normal_animals_are_those_seen_that_hear_normally(training):
    _, facts = load_model(training.path)
    assert facts.animals == tuple(SEEN)
    assert facts.normal == tuple(name for name in SEEN if name in NORMAL)
    space, names = hearing.learned(str(training.path))
    theta = space.loss.model.listeners.at()
    assert names == SEEN
    assert torch.equal(space.listeners, theta)
    assert torch.equal(space.normal, theta[[names.index("fresh"), names.index("young")]])


def test_listeners_are_drawn_near_those_meant_and_restored_to_normal_ones(training):
    space, names = hearing.learned(str(training.path))
    weights = torch.zeros(200, len(names))
    weights[:, names.index("aged")] = 1.0
    listener, normal = space.draw(weights, 0.0, torch.Generator().manual_seed(0))
    aged = space.listeners[names.index("aged")]
    assert (listener.mean(0) - aged).abs().max() < 0.02
    assert {tuple(row) for row in normal.tolist()} == {tuple(r) for r in space.normal.tolist()}


def test_an_aid_for_one_listener_is_for_its_fit_and_restores_to_normal_animals(training):
    fit = Fit("stranger", torch.tensor([0.1, 0.8]), None)
    space, names = hearing.learned(str(training.path), fit)
    assert names == ["stranger"]
    assert torch.equal(space.listeners, fit.theta[None])
    assert not space.deviation.any()
    assert torch.equal(space.normal, hearing.learned(str(training.path))[0].normal)


def test_a_true_animal_is_restored_to_its_healthy_twin(cohort, monkeypatch):
    animal = Animal(draw_anatomy(4, 0), draw_loss("HI", 1.5, 0))
    monkeypatch.setattr(Cohort, "truth", lambda *_: animal.truth())
    space = hearing.true(Cohort.open(cohort), "stranger")
    sound = 0.02 * torch.randn(1, 3200)
    impaired, normal = space.draw(torch.ones(1, 1), 0.0, seeded(0))
    for listener, ear in ((impaired, animal), (normal, animal.healthy())):
        expected = ear.count_probabilities(sound)
        torch.testing.assert_close(space.loss.respond(sound, listener).exp(), expected)


def test_an_audiogram_is_the_shift_from_seen_normal_animals(cohort):
    usual = (THRESHOLDS_DB_SPL["fresh"] + THRESHOLDS_DB_SPL["young"]) / 2
    for name in ("aged", "visitor"):
        shift = THRESHOLDS_DB_SPL[name] - usual
        audiogram = audiogram_of(Cohort.open(cohort), name)
        assert audiogram.at((1e3, 4e3)).tolist() == pytest.approx([shift, shift])


def test_a_checkpoint_says_the_audiograms_of_its_animals(training, cohort):
    _, facts = load_model(training.path)
    opened = Cohort.open(cohort)
    assert audiograms_of(facts) == [audiogram_of(opened, name) for name in SEEN]


# --- alignment ----------------------------------------------------------------------------------


def without_apart(name: str) -> list[int]:
    """Envelopes that the channels follow which follow any, in their order."""
    return [k for k in FOLLOWED[name] if k is not None]


@pytest.mark.parametrize("method", ["template", "permutation"])
def test_channels_are_brought_to_slots_that_follow_the_same(cohort, method):
    align.align(align.Config(cohort, method=method, name=method, reliable=RELIABLE))
    opened = Cohort.open(cohort)
    # Of each brain that makes the template the channels that can be relied on, in their order.
    slots = list(FOLLOWED["fresh"])
    if method == "template":
        slots = [*without_apart("fresh"), *without_apart("young")]
    for name, followed in FOLLOWED.items():
        alignment = opened.animal(name).alignment(method)
        assert alignment.slots == len(slots)
        matching = alignment.matching.tolist()
        assert [None if slot == UNMATCHED else slots[slot] for slot in matching] == list(followed)
        assert [slot == UNMATCHED for slot in matching] == [k is None for k in followed]
    errors = octave_errors(opened, reference_brains(opened, method), method)
    assert max(errors["after alignment"].values()) < 1e-3
    assert max(errors["before alignment"].values()) > 0.5


def test_the_published_cost_is_asked_for_by_name(cohort, monkeypatch):
    calls, measure = [], cohort_alignment.COSTS["squared"]
    monkeypatch.setitem(
        cohort_alignment.COSTS, "squared", lambda *two: calls.append(two) or measure(*two)
    )
    usual = align.align(align.Config(cohort, method="permutation", name="usual"))
    assert not calls
    report = align.align(
        align.Config(cohort, method="permutation", name="published", cost="squared")
    )
    assert len(calls) == len(report)
    # What is reported stays a correlation, and none is matched better than by correlation.
    for name, aligned in report.items():
        assert aligned["correlation"] <= usual[name]["correlation"] + 1e-6


def test_the_capacity_is_that_of_the_configuration(cohort, monkeypatch):
    capacities, work = set(), cohort_alignment.transport
    monkeypatch.setattr(
        cohort_alignment, "transport", lambda c, most: capacities.add(most) or work(c, most)
    )
    align.align(align.Config(cohort, name="tight", capacity=1.25))
    assert capacities == {1.25}


def test_likeness_is_that_of_the_matched_channels():
    cost, matching = torch.tensor([[0.0, 0.5], [0.25, 1.0], [0.0, 0.0]]), torch.tensor([1, 0, -1])
    assert likeness(cost, matching) == pytest.approx(1 - (0.5 + 0.25) / 2)


def test_validation_sounds_say_how_good_an_alignment_is_and_do_not_make_it(cohort, monkeypatch):
    align.align(align.Config(cohort, name="usual", reliable=RELIABLE))
    work = cohort_alignment.sound_responses

    def scrambled(cohort, name, smooth_bins, split="train"):
        answers = work(cohort, name, smooth_bins, split)
        shift = list(FOLLOWED).index(name) if split == "validation" else 0
        return {sound: x.roll(shift, 0) for sound, x in answers.items()}

    monkeypatch.setattr(cohort_alignment, "sound_responses", scrambled)
    report = align.align(align.Config(cohort, name="scrambled", reliable=RELIABLE))
    opened = Cohort.open(cohort)
    for name in FOLLOWED:
        one, other = (opened.animal(name).alignment(a).matching for a in ("usual", "scrambled"))
        assert torch.equal(one, other)
    assert report["loud"]["held_out_correlation"] < 0.5 * report["loud"]["correlation"]


# --- training -----------------------------------------------------------------------------------


def test_the_best_epoch_is_kept_and_its_error_is_of_validation_sounds(training, cohort):
    errors = [record["validation"] for record in training.history]
    model, facts = load_model(training.path)
    frames = Frames(Cohort.open(cohort), SEEN, "validation")
    batch = frames.read(range(len(frames)))
    with torch.no_grad():
        predicted = model(batch["sound"], facts.subjects(range(len(SEEN)), batch["hours"]))
    answers = batch["counts"].long().clamp(max=4).unsqueeze(3)
    nats = -predicted.log_probabilities().gather(3, answers).squeeze(3)
    first_turn = (nats.mean(-1) * facts.weight).sum() / (len(frames) * facts.weight.sum())
    # Presentations differ, so that the mean over all of them is only near that of the first ones.
    assert first_turn.item() == pytest.approx(min(errors), abs=0.02)
    assert min(errors) < errors[0]


def test_an_epoch_that_is_worse_is_not_kept(training, tmp_path):
    config = dataclasses.replace(training.config, out=str(tmp_path))
    made = trained(config, validation=[0.9, 0.5, 0.7])
    kept, _ = load_tensors(made.path)
    second, third = made.epochs[1:]
    assert all(torch.equal(kept[name], second[name]) for name in kept)
    assert not all(torch.equal(kept[name], third[name]) for name in kept)


def test_an_epoch_passes_once_over_the_training_frames(training, cohort):
    steps = math.ceil(len(Frames(Cohort.open(cohort), SEEN, "train")) / training.config.batch)
    _, progress = load_tensors(training.path.parent / "state.safetensors")
    assert progress["step"] == training.config.epochs * steps


def test_the_order_of_frames_and_the_animals_that_answer_change(training):
    steps = len(training.batches) // training.config.epochs
    orders = [
        [frame for frames, _ in training.batches[first : first + steps] for frame in frames]
        for first in range(0, len(training.batches), steps)
    ]
    assert all(sorted(order) == list(range(len(order))) for order in orders)
    assert orders[0] != orders[1]
    assert len({tuple(animals) for _, animals in training.batches}) > 2
    assert {n for _, animals in training.batches for n in animals} == set(range(len(SEEN)))


def test_what_was_not_answered_and_channels_set_apart_teach_nothing(
    training, cohort, tmp_path, monkeypatch
):
    opened, work = Cohort.open(cohort), Frames.read
    apart = torch.stack([opened.animal(n).alignment().matching == UNMATCHED for n in SEEN])
    assert apart.sum(1).tolist() == [1] * len(SEEN)

    def shouting(frames, indices, animals=None):
        batch = work(frames, indices, animals)
        some = apart if animals is None else apart[list(animals)]
        batch["counts"][~batch["heard"]] = 4
        batch["counts"].masked_fill_(some[None, :, :, None], 4)
        return batch

    frames = Frames(opened, SEEN, "train")
    answered = frames.read(range(len(frames)))["heard"][:, SEEN.index(MISSED[0])]
    assert (~answered).sum() == 2
    monkeypatch.setattr(Frames, "read", shouting)
    made = trained(dataclasses.replace(training.config, out=str(tmp_path)))
    for one, other in zip(training.epochs, made.epochs, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    _, facts = load_model(made.path)
    assert torch.equal(facts.matching == UNMATCHED, apart)


def test_channels_are_matched_again_for_each_animal_at_its_hours(training, cohort, monkeypatch):
    model, facts = load_model(training.path)
    frames, subjects = Frames(Cohort.open(cohort), SEEN, "train"), []
    monkeypatch.setattr(
        matching, "rematch", lambda m, s, c, subject, slots: subjects.append(subject) or slots
    )
    matching.rematch_animals(model, facts, frames)
    batch = frames.read(range(len(frames)))
    for animal, subject in enumerate(subjects):
        hours = batch["hours"][batch["heard"][:, animal], animal].mean()
        assert subject.animals.tolist() == [animal]
        assert subject.matching is None
        torch.testing.assert_close(subject.hours, hours[None, None])


def test_the_prior_of_channels_is_that_of_all_animals(training, cohort, monkeypatch):
    model, facts = load_model(training.path)
    learned = []

    def learn(gains, covariances):
        learned.extend(gains)
        return broad(5)

    monkeypatch.setattr(listener_cost, "learn_prior", learn)
    frames = Frames(Cohort.open(cohort), SEEN, "validation")
    listener_cost.channel_prior(model, facts, frames)
    assert [len(gains) for gains in learned] == facts.weight.sum(1).tolist()


def test_the_threshold_penalty_ends_after_its_epochs(training):
    assert ["thresholds" in record for record in training.history] == [True, False, False]


Terms = tuple[dict[str, float], ResponseModel, ModelFacts]


def terms_of(training, cohort, step: int = 0, rows: slice = slice(0, 4), **changes) -> Terms:
    """Terms of the objective on some rows of a batch of four, and whose they are."""
    model, facts = load_model(training.path)
    batch = Frames(Cohort.open(cohort), SEEN, "train").read(range(4))
    batch |= {"animals": torch.arange(len(SEEN)), "rows": torch.arange(4), "frames": 4}
    weight = facts.weight * batch["heard"].unsqueeze(-1)
    batch |= {"weight": weight, "observations": weight.sum() * batch["counts"].shape[-1]}
    config = dataclasses.replace(training.config, **changes)
    run = train_ic.Run(config, None, model, model, None, None, None, None)
    terms = train_ic.training_losses(run, facts, batch, rows, 0, step)
    return {name: term.item() for name, term in terms.items()}, model, facts


def test_each_term_has_its_weight(training, cohort):
    terms, model, facts = terms_of(
        training, cohort, rows=slice(0, 2), kl_weight=0.3, threshold_weight=0.7
    )
    listeners = model.listeners
    divergence = 0.5 * 0.3 * listener_divergence(listeners.deviation).item()
    assert terms["divergence"] == pytest.approx(divergence)
    penalty = 0.5 * 0.7 * threshold_penalty(listeners.at(), facts.thresholds_db_spl).item()
    assert terms["thresholds"] == pytest.approx(penalty)


def test_noise_of_theta_is_new_in_each_step_and_can_be_left_out(training, cohort):
    errors = [
        terms_of(training, cohort, step, noise=noise)[0]["cross_entropy"]
        for noise in (True, False)
        for step in (0, 1)
    ]
    assert errors[0] != errors[1]
    assert errors[2] == errors[3]


@pytest.mark.parametrize("factor", [0.0, 10.0])
def test_listeners_move_at_their_own_rate(training, tmp_path, factor):
    config = dataclasses.replace(
        training.config, out=str(tmp_path), epochs=1, listener_rate=factor, learning_rate=1e-3
    )
    made = trained(config)
    model, facts = load_model(made.path)
    start = ResponseModel(model.config).listeners.mean
    assert torch.equal(facts.start["mean"], start)
    moved = (made.epochs[0]["condition.listeners.mean"] - start).abs().max().item()
    # Adam moves by about its rate in each of the three steps.
    assert moved == pytest.approx(3 * factor * 1e-3, rel=0.5, abs=1e-9)


@pytest.mark.parametrize(
    ("rate", "name"), [("deviation_rate", "log_deviation"), ("drift_rate", "shift")]
)
def test_deviations_and_drift_move_at_rates_of_their_own(training, tmp_path, rate, name):
    moved = {}
    for factor in (0.0, 1.0, 8.0):
        config = dataclasses.replace(
            training.config, out=str(tmp_path / str(factor)), epochs=1, learning_rate=1e-3
        )
        made = trained(dataclasses.replace(config, **{rate: factor}))
        start = getattr(ResponseModel(load_model(made.path)[0].config).listeners, name)
        now = made.epochs[0][f"condition.listeners.{name}"]
        moved[factor] = (now - start).abs().max().item()
    assert moved[0.0] == 0
    assert moved[8.0] > 4 * moved[1.0] > 0


def test_theta_stays_within_its_bounds(training, tmp_path):
    config = dataclasses.replace(training.config, out=str(tmp_path), epochs=1, listener_rate=1e4)
    mean = trained(config).epochs[0]["condition.listeners.mean"]
    assert mean.abs().max() == 10


@pytest.mark.parametrize("shared_drift", [True, False])
def test_tables_of_listeners_are_no_matrices(training, cohort, shared_drift):
    opened = Cohort.open(cohort)
    condition = ThetaConfig(shared_drift=shared_drift)
    made = config_for(opened, cohort_facts(opened, SEEN), ENCODER, condition, channel_gains=True)
    model = ResponseModel(made)
    config = dataclasses.replace(
        training.config, muon_rate=0.02, weight_decay=0.1, deviation_rate=3.0, drift_rate=7.0
    )
    groups = train_ic.parameter_groups(model, config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kernels, vectors, *tables = ([names[id(p)] for p in group["params"]] for group in groups)
    assert sorted([*kernels, *vectors, *itertools.chain(*tables)]) == sorted(names.values())
    listeners = [
        f"condition.listeners.{name}"
        for name in ("mean", "log_deviation", "shift", "rate", "onset")
    ]
    assert tables == [*([name] for name in listeners), ["channel_gains.deviation"]]
    assert [group["orthogonal"] for group in groups] == [True, *[False] * 7]
    rates = [group["rate"] for group in groups]
    drift = [35e-3, 35e-3 * 2.5, 35e-3 / 40]
    assert rates == pytest.approx([0.02, 5e-3, 5e-2, 15e-3, *drift, 5e-3])
    assert [group.get("weight_decay", 0) for group in groups] == [0.1, *[0] * 7]


@pytest.mark.parametrize(("clip", "norm"), [(0.01, 0.01), (1e9, None), (None, None)])
def test_gradients_of_a_step_are_scaled_down_to_a_norm(training, tmp_path, monkeypatch, clip, norm):
    seen, step = [], train_ic.Muon.step

    def watched(optimiser, *rest):
        every = [p.grad for group in optimiser.param_groups for p in group["params"]]
        seen.append(torch.cat([g.flatten() for g in every if g is not None]).norm().item())
        return step(optimiser, *rest)

    monkeypatch.setattr(train_ic.Muon, "step", watched)
    trained(dataclasses.replace(training.config, out=str(tmp_path), epochs=1, clip=clip))
    if norm:
        assert seen == pytest.approx([norm] * len(seen), rel=1e-3)
    else:
        assert min(seen) > 0.02


def epochs(*validation: float) -> list[dict]:
    return [{"validation": value} for value in validation]


PLATEAU = train_ic.Config("cohort", "out", schedule="plateau", epochs=120)


@pytest.mark.parametrize(
    ("validation", "factor"),
    [
        ([], 1),
        ([1.0, 1.0, 1.0, 1.0], 1),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 1 / 2),
        ([1.0] + 4 * [1.1] + [0.9], 1 / 2),
        ([1.0] + 4 * [1.1] + [0.9] + 3 * [0.95], 1 / 2),
        ([1.0] + 4 * [1.1] + [0.9] + 4 * [0.95], 1 / 4),
        ([1.0] + 8 * [1.1], 1 / 4),
    ],
)
def test_rates_halve_after_four_epochs_without_gain(validation, factor):
    assert train_ic.rate_decay(PLATEAU, epochs(*validation), 50, 10) == factor


def test_training_stops_after_ten_epochs_without_gain_or_at_the_last():
    for count, done in ((9, False), (10, True)):
        progress = {"step": 500, "history": epochs(1.0, *[1.1] * count)}
        assert train_ic._finished(progress, PLATEAU, 10) is done
        cosine = dataclasses.replace(PLATEAU, schedule="cosine")
        assert not train_ic._finished(progress, cosine, 10)
    assert train_ic._finished({"step": 1200, "history": epochs(1.0)}, PLATEAU, 10)


def test_a_cosine_warms_up_and_falls_to_zero():
    config = dataclasses.replace(PLATEAU, schedule="cosine", epochs=100)
    rates = [train_ic.rate_decay(config, [], step, 10) for step in (0, 19, 500, 999)]
    assert rates == pytest.approx([1 / 20, 1.0, 0.5, 0.0], abs=1e-3)


# --- aids ---------------------------------------------------------------------------------------


def aid_config(training, cohort, out="out", **changes) -> train_compensation.Config:
    defaults = {
        "masks": MasksConfig(listener=2, bands=4, width=4, layers=1),
        "steps": 2,
        "batch": 4,
        "excerpt_s": 0.3,
    }
    return train_compensation.Config(cohort, str(training.path), str(out), **defaults | changes)


def test_an_aid_is_told_of_the_listeners_that_judge_it(training, cohort):
    opened = Cohort.open(cohort)
    config = aid_config(training, cohort)
    listeners = train_compensation.open_listeners(config, opened)
    _, listener, drawn = train_compensation.draw(config, listeners, seeded(0))
    assert torch.equal(listener, drawn[0][0])
    inexact = dataclasses.replace(config, misfit=0.05, batch=400)
    _, listener, drawn = train_compensation.draw(inexact, listeners, seeded(0))
    inside = ((drawn[0][0] > 0.2) & (drawn[0][0] < 0.8)).all(1)
    assert (listener - drawn[0][0])[inside].std() == pytest.approx(0.05, rel=0.2)
    config = dataclasses.replace(config, listener="audiogram")
    listeners = train_compensation.open_listeners(config, opened)
    expected = torch.stack([from_audiogram(audiogram_of(opened, name)) for name in SEEN])
    assert torch.equal(listeners.known, expected)
    aged = THRESHOLDS_DB_SPL["aged"] - 22.0
    assert listeners.thresholds_db_hl[0, AUDIOGRAM_HZ.index(4000.0)].item() == pytest.approx(aged)
    mixture, listener, _ = train_compensation.draw(config, listeners, seeded(0))
    torch.testing.assert_close(listener, mixture @ listeners.known)


def test_an_aid_for_one_listener_is_judged_by_it_alone(training, cohort, tmp_path, monkeypatch):
    path, opened = tmp_path / "stranger.json", Cohort.open(cohort)
    fit = {"animal": "stranger", "theta": [0.3, 0.6], "model": fingerprint(training.path)}
    path.write_text(json.dumps(fit))
    config = aid_config(training, cohort, only=str(path))
    listeners = train_compensation.open_listeners(config, opened)
    _, listener, drawn = train_compensation.draw(config, listeners, seeded(0))
    for theta in (listener, drawn[0][0]):
        torch.testing.assert_close(theta, torch.tensor([[0.3, 0.6]]).expand(4, -1))
    monkeypatch.setattr(hearing, "true", lambda cohort, name: f"true {name}")
    truly = dataclasses.replace(config, through="animal")
    assert train_compensation.open_listeners(truly, opened).models == ["true stranger"]
    human = dataclasses.replace(config, only=None, through="auditory")
    (judge,) = train_compensation.open_listeners(human, opened).models
    assert isinstance(judge.loss.model, AuditoryModel)


@pytest.fixture
def judged(training, cohort):
    """An aid, two ears that judge it, and a batch of which half is in noise."""
    torch.manual_seed(0)
    config = aid_config(training, cohort)
    aid = Masks(config.masks)
    torch.nn.init.normal_(aid.leave.weight, std=1.0)
    listeners = train_compensation.open_listeners(config, Cohort.open(cohort))
    judges = listeners.models
    other = ResponseModel(judges[0].loss.model.config)
    judges += [dataclasses.replace(judges[0], loss=ResponseLoss(other))]
    _, listener, drawn = train_compensation.draw(config, listeners, seeded(0))
    clean = 0.02 * torch.randn(4, 8192)
    noisy, in_noise = clean.clone(), torch.tensor([True, False, True, False])
    noisy[in_noise] += 0.02 * torch.randn(2, 8192)
    batch = {"clean": clean, "noisy": noisy, "in_noise": in_noise, "known": listener}
    return config, aid, [one.loss for one in judges], batch, drawn


def test_normal_ears_judge_noise_reduction_and_the_listener_compensation(judged):
    _, _, losses, batch, drawn = judged
    asked = tasks(losses, batch, drawn)
    every = zip(losses, drawn, *asked.values(), strict=True)
    for loss, (listener, normal), compensation, denoising in every:
        assert torch.equal(compensation.listener, listener)
        torch.testing.assert_close(compensation.wanted, loss.respond(batch["noisy"], normal))
        clean = loss.respond(batch["clean"], normal)[batch["in_noise"]]
        torch.testing.assert_close(denoising.wanted, clean)
        assert torch.equal(denoising.listener, normal[batch["in_noise"]])


def test_each_task_hears_its_own_mask_and_all_ears_judge(judged):
    _, aid, losses, batch, drawn = judged
    asked = tasks(losses, batch, drawn)
    usual = {name: torch.ones(len(losses)) for name in asked}
    gauge = BandLevels()
    terms = training_terms(losses, aid, aid, batch, asked, usual, gauge)
    noisy, listener, in_noise = batch["noisy"], batch["known"], batch["in_noise"]
    louder = aid.process(noisy, listener, noise_reduction=0, gain=1)
    cleaner = aid.process(noisy, listener, noise_reduction=1, gain=0)[in_noise]
    for name, sound in (("compensation", louder), ("denoising", cleaner)):
        left = [
            discrepancy_left(loss, sound, task, torch.ones(()))
            for loss, task in zip(losses, asked[name], strict=True)
        ]
        torch.testing.assert_close(terms[name], torch.stack(left).mean(0))
    assert not torch.allclose(left[0], left[1])
    torch.testing.assert_close(terms["effort"], effort(gauge(louder) - gauge(noisy)))


def test_what_guards_an_aid_has_weight(training, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(train_compensation, "_log", lambda *_: None)
    made = []
    for weight in (0.0, 100.0):
        weights = train_compensation.Weights(effort=weight)
        config = aid_config(training, cohort, tmp_path / str(weight), weights=weights)
        made.append(load_tensors(train_compensation.train(config))[0])
    assert not torch.equal(made[0]["leave.bias"], made[1]["leave.bias"])


def test_the_end_of_an_aids_training_is_found_on_validation_sounds(training, cohort, reads):
    plateau = train_compensation.Plateau(excerpts=6)
    config = aid_config(training, cohort, plateau=plateau)
    opened = Cohort.open(cohort)
    listeners = train_compensation.open_listeners(config, opened)
    held_out = train_compensation.validation(config, opened, listeners, torch.device("cpu"))
    assert set(reads.sounds) == {"validation"}
    assert [len(batch["noisy"]) for batch, _ in held_out] == [4, 2]


def test_training_ends_at_the_plateau_after_the_last_drop_of_the_rate():
    plateau = train_compensation.Plateau(patience=2, drops=1)
    config = train_compensation.Config("cohort", "model", "out", plateau=plateau)
    errors = [0.9, 0.8, 0.8, 0.8, 0.8, 0.8]
    ended = [train_compensation.stopped(config, {"validation": errors[:n]}) for n in range(7)]
    assert ended == [False] * 6 + [True]


def test_the_best_aid_of_all_validations_is_kept(training, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(train_compensation, "_log", lambda *_: None)
    errors, weights, work = iter([0.9, 0.5, 0.8, 0.7]), [], train_compensation.validate

    def planted(training, before):
        """As if the aid left these shares."""
        modules = training.modules
        weights.append({name: x.clone() for name, x in modules["aid"].state_dict().items()})
        work(training, before)
        error = next(errors)
        if error < min(before, default=math.inf):
            modules["best"].load_state_dict(modules["aid"].state_dict())
        return error

    plateau = train_compensation.Plateau(every=1, patience=2, drops=0, excerpts=2)
    config = aid_config(training, cohort, tmp_path, steps=9, plateau=plateau)
    with monkeypatch.context() as patch:
        patch.setattr(train_compensation, "validate", planted)
        aid, facts = load_aid(train_compensation.train(config))
    assert len(weights) == 4, "two validations without a gain are the end"
    assert (facts.steps, facts.best_step) == (3, 1)
    assert all(torch.equal(x, weights[1][name]) for name, x in aid.state_dict().items())


def test_a_validation_keeps_an_aid_that_leaves_less(judged):
    _, aid, losses, batch, drawn = judged
    held_out = [(batch, tasks(losses, batch, drawn))]
    modules = {"aid": aid, "best": Masks(aid.config)}
    run = SimpleNamespace(
        models=losses, modules=modules, plain=aid, held_out=held_out, mean=lambda x: x
    )
    left = train_compensation.validate(run, [0.0])
    assert left > 0
    assert not torch.equal(modules["best"].leave.weight, aid.leave.weight)
    before = [9 + left, 1 + left]
    again = train_compensation.validate(run, before)
    assert again == left
    assert torch.equal(modules["best"].leave.weight, aid.leave.weight)


def test_gains_of_baselines_are_chosen_on_training_sounds(cohort, reads):
    material = Material(levels_db_spl=(50.0, 65.0))
    job = SimpleNamespace(seed=0, training_excerpts=8, training_s=0.3, material=material)
    sounds = judgement.training_sounds(Cohort.open(cohort), job)
    assert set(reads.sounds) == {"train"}
    assert level(sounds).tolist() == pytest.approx([50.0] * 4 + [65.0] * 4, abs=0.01)


def test_the_rate_of_an_aid_warms_up_and_falls_to_zero(training, cohort):
    config = aid_config(training, cohort, steps=1000)
    rates = [train_compensation.rate_decay(config, step) for step in (0, 19, 500, 999)]
    assert rates == pytest.approx([1 / 20, 1.0, 0.5, 0.0], abs=1e-3)


# --- scores -------------------------------------------------------------------------------------


def test_gains_of_a_new_listeners_channels_are_used(training):
    model, facts = load_model(training.path)
    gains = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5]).repeat(3, 1)
    slots, theta = torch.tensor([2, 0, 1]), torch.full((2,), 0.5)
    listener = scoring.Listener(slots, theta=theta, gains=gains)
    latent = model.latent(torch.randn(1, 4096))
    probability = scoring.expect(model, facts, listener, latent, torch.zeros(1))
    expected = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5]).softmax(0)
    torch.testing.assert_close(probability, expected[None, :, None].expand_as(probability))


def test_known_animals_are_asked_as_they_are_known(training, cohort, tmp_path):
    model, facts = load_model(training.path)
    opened = Cohort.open(cohort)
    for name in ("loud", "stranger"):
        fit = {"animal": name, "theta": [0.3, 0.6], "matching": [0] * 5}
        (tmp_path / f"{name}.json").write_text(json.dumps(fit))
    listener = score_ic.find_listener(model, facts, opened, "loud", fits=str(tmp_path))
    assert listener.place == SEEN.index("loud")
    assert listener.matching.tolist() == facts.matching[listener.place].tolist()
    stranger = score_ic.find_listener(model, facts, opened, "stranger", fits=str(tmp_path))
    assert stranger.place is None
    assert stranger.theta.tolist() == pytest.approx([0.3, 0.6])


def test_a_fit_of_another_model_is_not_scored(training, cohort, tmp_path):
    fit = {"animal": "stranger", "theta": [0.3, 0.6], "matching": [0] * 5, "model": "another"}
    (tmp_path / "stranger.json").write_text(json.dumps(fit))
    config = score_ic.Config(cohort, str(training.path), str(tmp_path))
    with pytest.raises(ValueError, match="was fitted to another model"):
        score_ic.score_ic(config)


def test_scores_of_an_animal_are_medians_over_sounds():
    rows = [
        {"kind": kind, "feve": feve, "ccnorm": 0.5, "kl": kl}
        for kind, feve, kl in (("speech", 0.1, 1.0), ("speech", 0.2, 2.0), ("music", 0.9, 9.0))
    ]
    scores = score_ic.summary([*rows, {"kind": "music", "feve": None, "ccnorm": None, "kl": 9.0}])
    assert scores["feve"] == pytest.approx(0.2)
    assert scores["feve_mad"] == pytest.approx(0.1)
    assert scores["feve_by_kind"] == pytest.approx({"speech": 0.1, "music": 0.9})
