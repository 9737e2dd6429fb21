"""What is learned from what: no test sound, no truth, no stranger; and which epoch is kept."""

import dataclasses
import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from compensation.masks import MasksConfig
from icsim.conditional import BetaICNet
from icsim.frames import Frames
from icsim.icnet import EncoderConfig
from icsim.objective import listener_divergence, threshold_penalty
from icsim.recording import APART, AnimalRecording
from icsim.store import Cohort
from icsim.weights import load_network, load_tensors
from recipes import align, ears, fit_theta, networks, train_compensation, train_ic
from tests.planted import FOLLOWED, NORMAL, SPLITS, THRESHOLDS_DB_SPL, UNSEEN, planted_cohort

SEEN = sorted(set(FOLLOWED) - set(UNSEEN))

RELIABLE = 0.3
"""Above what two presentations of two short sounds have in common by chance."""

ENCODER = EncoderConfig(filters=8, kernels=8, size=8, bottleneck=8, input_scale=20.0)


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
        self.truths: list[str] = []
        pressure, block, truth = Cohort.pressure, AnimalRecording.block, Cohort.truth

        def sound(cohort, index, *where):
            self.sounds[SPLITS[index]] += 1
            return pressure(cohort, index, *where)

        def answer(animal, which, *where):
            shown = animal.presentations[which]
            self.answers[animal.name, SPLITS[shown.sound]] += 1
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
    """A training of BetaICNet, and what was seen of it."""

    config: train_ic.Config
    path: Path
    reads: Reads
    epochs: list[dict]
    """Weights at the end of each."""
    history: list[dict]


def trained(config: train_ic.Config, validation: list[float] | None = None) -> Training:
    """Train; validation can be made up."""
    epochs: list[dict] = []
    work = train_ic.validate

    def validate(model, *rest):
        epochs.append({name: value.clone() for name, value in model.state_dict().items()})
        return validation[len(epochs) - 1] if validation else work(model, *rest)

    with pytest.MonkeyPatch.context() as watch:
        watch.setattr(train_ic, "validate", validate)
        watch.setattr(train_ic, "_log", lambda *_: None)
        reads = Reads(watch)
        path = train_ic.train(config)
    _, progress = load_tensors(path.parent / "state.safetensors")
    return Training(config, path, reads, epochs, progress["history"])


@pytest.fixture(scope="module")
def training(cohort, tmp_path_factory) -> Training:
    """Three epochs, the first of them with the threshold penalty."""
    config = train_ic.Config(
        cohort,
        str(tmp_path_factory.mktemp("ic")),
        parameters=2,
        encoder=ENCODER,
        fusion_size=4,
        batch=4,
        epochs=3,
        learning_rate=5e-3,
        threshold_epochs=1,
        rematch_epochs=[1],
        precision="no",
    )
    return trained(config)


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["template", "permutation"])
def test_brains_are_aligned_by_answers_to_training_and_validation_sounds(cohort, reads, method):
    align.align(align.Config(cohort, method=method, name="watched"))
    every = {(name, split) for name in FOLLOWED for split in ("train", "validation")}
    assert set(reads.answers) == every
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
    batch = fit_theta.first_frames(Cohort.open(cohort), config)
    assert set(reads.answers) == {("stranger", "train")}
    assert set(reads.sounds) == {"train"}
    assert reads.latest_h <= 4.0
    assert bool(batch["heard"].all())
    assert bool((batch["hours"] <= 4.0 + 1e-3).all())
    fit_theta.fit_theta(dataclasses.replace(config, dense=4))
    assert set(reads.answers) == {("stranger", "train")}
    assert set(reads.sounds) == {"train"}
    assert not reads.truths


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
        told=told,
        masks=MasksConfig(bands=4, width=4, layers=1),
        steps=2,
        batch=2,
        excerpt_s=0.3,
    )
    _, facts = load_network(train_compensation.train(config), train_compensation.Masks)
    assert set(reads.sounds) == {"train"}
    assert not reads.answers
    assert not reads.truths
    normal = ears.learned(str(training.path))[0].normal
    assert torch.tensor(facts["healthy"]).equal(normal)


# --- who is normal ------------------------------------------------------------------------------


def test_the_normal_animals_are_those_seen_that_hear_normally(training):
    _, facts = load_network(training.path, BetaICNet)
    assert facts["animals"] == SEEN
    assert facts["normal"] == [name for name in SEEN if name in NORMAL]
    hearing, names = ears.learned(str(training.path))
    theta = hearing.loss.model.listeners.at()
    assert names == SEEN
    assert torch.equal(hearing.listeners, theta)
    assert torch.equal(hearing.normal, theta[[names.index("fresh"), names.index("young")]])


def test_listeners_are_drawn_near_those_meant_and_restored_to_normal_ones(training):
    hearing, names = ears.learned(str(training.path))
    weights = torch.zeros(200, len(names))
    weights[:, names.index("aged")] = 1.0
    listener, normal = hearing.draw(weights, 0.0, torch.Generator().manual_seed(0))
    aged = hearing.listeners[names.index("aged")]
    assert (listener.mean(0) - aged).abs().max() < 0.02
    assert {tuple(row) for row in normal.tolist()} == {tuple(r) for r in hearing.normal.tolist()}


def test_an_audiogram_is_the_shift_from_seen_normal_animals(cohort):
    usual = (THRESHOLDS_DB_SPL["fresh"] + THRESHOLDS_DB_SPL["young"]) / 2
    for name in ("aged", "visitor"):
        shift = THRESHOLDS_DB_SPL[name] - usual
        audiogram = ears.audiogram(Cohort.open(cohort), name)
        assert audiogram.at((1e3, 4e3)).tolist() == pytest.approx([shift, shift])


# --- alignment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["template", "permutation"])
def test_channels_are_brought_to_slots_that_follow_the_same(cohort, method):
    align.align(align.Config(cohort, method=method, name=method, reliable=RELIABLE))
    opened = Cohort.open(cohort)
    # Of each brain that makes the template the channels that can be relied on, in their order.
    slots = [*FOLLOWED["fresh"], None]
    if method == "template":
        slots = [*FOLLOWED["fresh"], *FOLLOWED["young"]]
    for name, followed in FOLLOWED.items():
        alignment = opened.animal(name).alignment(method)
        assert alignment.slots == len(slots)
        *matching, noise = alignment.matching.tolist()
        assert noise == APART
        assert [slots[slot] for slot in matching] == list(followed)


def test_validation_sounds_say_how_good_an_alignment_is_and_do_not_make_it(cohort, monkeypatch):
    align.align(align.Config(cohort, name="usual", reliable=RELIABLE))
    work = align.sound_responses

    def scrambled(cohort, name, smooth_bins, split="train"):
        answers = work(cohort, name, smooth_bins, split)
        shift = list(FOLLOWED).index(name) if split == "validation" else 0
        return {sound: x.roll(shift, 0) for sound, x in answers.items()}

    monkeypatch.setattr(align, "sound_responses", scrambled)
    report = align.align(align.Config(cohort, name="scrambled", reliable=RELIABLE))
    opened = Cohort.open(cohort)
    for name in FOLLOWED:
        one, other = (opened.animal(name).alignment(a).matching for a in ("usual", "scrambled"))
        assert torch.equal(one, other)
    assert report["loud"]["held_out_correlation"] < 0.3 < report["loud"]["correlation"]


# --- training -----------------------------------------------------------------------------------


def test_the_best_epoch_is_kept_and_its_error_is_of_validation_sounds(training, cohort):
    errors = [record["validation"] for record in training.history]
    network, facts = networks.load(training.path)
    frames = Frames(Cohort.open(cohort), SEEN, "validation")
    batch = frames.read(range(len(frames)))
    brains = networks.known_brains(facts)
    with torch.no_grad():
        predicted = networks.predict(network, brains, batch["sound"], batch["hours"])
    answers = batch["counts"].long().clamp(max=4).unsqueeze(3)
    nats = -predicted.log_probabilities().gather(3, answers).squeeze(3)
    first_turn = (nats.mean(-1) * brains.weight).sum() / (len(frames) * brains.weight.sum())
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


def test_the_threshold_penalty_ends_after_its_epochs(training):
    assert ["thresholds" in record for record in training.history] == [True, False, False]


def test_each_term_has_its_weight(training, cohort):
    network, facts = networks.load(training.path)
    brains = networks.known_brains(facts)
    frames = Frames(Cohort.open(cohort), SEEN, "train")
    batch = frames.read(range(4)) | {"animals": torch.arange(len(SEEN))}
    batch |= {"rows": torch.arange(4), "frames": 4}
    weight = brains.weight * batch["heard"].unsqueeze(-1)
    batch |= {"weight": weight, "observations": weight.sum() * batch["counts"].shape[-1]}
    config = dataclasses.replace(training.config, kl_weight=0.3, threshold_weight=0.7)
    listeners, half = network.listeners, slice(0, 2)
    terms = train_ic.training_losses(network, network, batch, half, brains, config, 0, 0)
    divergence = 0.5 * 0.3 * listener_divergence(listeners.deviation)
    torch.testing.assert_close(terms["divergence"], divergence)
    penalty = 0.5 * 0.7 * threshold_penalty(listeners.at(), brains.thresholds_db_spl)
    torch.testing.assert_close(terms["thresholds"], penalty)


@pytest.mark.parametrize("factor", [0.0, 10.0])
def test_listeners_move_at_their_own_rate(training, tmp_path, factor):
    config = dataclasses.replace(
        training.config, out=str(tmp_path), epochs=1, listener_rate=factor, learning_rate=1e-3
    )
    made = trained(config)
    start = BetaICNet(load_network(made.path, BetaICNet)[0].config).listeners.mean
    moved = (made.epochs[0]["listeners.mean"] - start).abs().max().item()
    # Adam moves by about its rate in each of the three steps.
    assert moved == pytest.approx(3 * factor * 1e-3, rel=0.5, abs=1e-9)


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
