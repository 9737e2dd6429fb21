"""Where training begins: sizes by the cohort, histograms of counts, and other models."""

import dataclasses

import pytest
import torch

from icsim.clock import Clock
from icsim.models.conditions import BranchesConfig, NoCondition, ThetaConfig, ThresholdsConfig
from icsim.models.encoders import SincNetConfig
from icsim.models.facts import ModelFacts, cohort_facts
from icsim.models.matching import rematch
from icsim.models.readouts import CategoricalConfig
from icsim.models.response import ResponseModel, abrnet, beta_icnet, icnet
from icsim.models.start import begin_from, config_for, count_histogram
from icsim.models.subjects import Subjects
from icsim.recording import Recording
from icsim.sound import Sound
from icsim.store import Cohort, create

ENCODER = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=20.0)
MATCHING = torch.tensor([[0, 1, 2], [3, -1, 4], [1, 1, 3]])
THRESHOLDS = torch.tensor([[30.0] * 5, [60.0] * 5, [31.0] * 5])
FACTS = ModelFacts(("a", "b", "c"), ("a",), MATCHING, 5, THRESHOLDS)
MODELS = {
    "theta": beta_icnet(3, 5, encoder=ENCODER),
    "thresholds": abrnet(5, encoder=ENCODER),
    "branches": icnet(3, 3, encoder=ENCODER),
}


class FakeFrames:
    """A few frames of counts, as `Frames` reads them."""

    def __len__(self):
        return 8

    def read(self, indices):
        counts = torch.ones(len(indices), 3, 3, 6, dtype=torch.uint8)
        counts[:, 1] = 4
        heard = torch.ones(len(indices), 3, dtype=torch.bool)
        return {"counts": counts, "heard": heard}


def cohort_of(path, channels: dict[str, int], clock: Clock | None = None) -> Cohort:
    cohort = create(path, [Sound("s", "noise", "s", "train", torch.ones(2400))], clock=clock)
    bins = 2400 // cohort.clock.bin_samples
    for name, count in channels.items():
        counts = [torch.ones(bins, count, dtype=torch.uint8)]
        cohort.add_animal(name, Recording("NH", "seen", None, None, count, [(0, 0.0)], counts))
    return cohort


@pytest.mark.parametrize("kind", list(MODELS))
def test_some_animals_answer_as_among_all(kind):
    torch.manual_seed(0)
    model = ResponseModel(MODELS[kind])
    sound, hours = torch.randn(2, 2048 + 320), torch.rand(2, 3)
    every = model(sound, FACTS.subjects([0, 1, 2], hours)).log_probabilities()
    assert every.shape == (2, 3, 3, 5, 10)
    some = FACTS.subjects([2, 0], hours[:, [2, 0]])
    part = model(sound, some).log_probabilities()
    torch.testing.assert_close(part, every[:, [2, 0]])
    again = model.predict(model.latent(sound), some, model.context_bins)
    torch.testing.assert_close(again.log_probabilities(), part)


@pytest.mark.parametrize("kind", list(MODELS))
def test_the_context_of_a_frame_is_left_out_and_nothing_else(kind):
    torch.manual_seed(0)
    model = ResponseModel(MODELS[kind])
    sound = torch.randn(1, 2048 + 320, requires_grad=True)
    predicted = model(sound, FACTS.subjects([0, 1, 2], torch.zeros(1, 3))).log_probabilities()
    assert predicted.shape[-1] == 10
    for bin in (0, 4, 9):
        (reach,) = torch.autograd.grad(predicted[0, 0, 0, 0, bin], sound, retain_graph=True)
        assert reach.nonzero()[:, 1].max() == 2048 + 32 * (bin + 1) - 1


@pytest.mark.parametrize("kind", ["theta", "thresholds"])
def test_models_begin_from_branches_channel_by_channel(kind):
    torch.manual_seed(0)
    two = ModelFacts(("b", "a"), ("a",), MATCHING[[1, 0]], 5)
    other = ResponseModel(icnet(2, 3, encoder=ENCODER))
    with torch.no_grad():
        other.readout.bias.normal_()
    model = ResponseModel(MODELS[kind])
    begin_from(model, FACTS, other, two)
    for mine, theirs in zip(model.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    rows = model.readout.weight.view(5, 5, 4)
    branches = other.readout.weight.view(2, 3, 5, 4)
    for slot, (branch, channel) in {0: (1, 0), 1: (1, 1), 2: (1, 2), 3: (0, 0), 4: (0, 2)}.items():
        assert torch.equal(rows[slot], branches[branch, channel])
    config = dataclasses.replace(MODELS[kind], encoder=dataclasses.replace(ENCODER, kernels=6))
    with pytest.raises(ValueError, match="the encoder to begin from is another one"):
        begin_from(ResponseModel(config), FACTS, other, two)
    config = dataclasses.replace(MODELS[kind], readout=CategoricalConfig(classes=4))
    with pytest.raises(ValueError, match="the readout to begin from is another one"):
        begin_from(ResponseModel(config), FACTS, other, two)


def test_branches_of_the_same_animals_go_on_with_all_that_they_are():
    torch.manual_seed(0)
    other, model = (ResponseModel(MODELS["branches"]) for _ in range(2))
    with torch.no_grad():
        other.condition.drift.normal_()
    begin_from(model, FACTS, other, dataclasses.replace(FACTS, animals=("a", "c", "b")))
    assert torch.equal(model.encoder.bottleneck.conv.weight, other.encoder.bottleneck.conv.weight)
    assert not torch.equal(model.readout.weight, other.readout.weight)
    begin_from(model, FACTS, other, FACTS)
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


def test_channels_that_no_animal_has_begin_at_the_mean_histogram():
    facts = dataclasses.replace(FACTS, slots=6)
    histogram = count_histogram(ResponseModel(abrnet(6, encoder=ENCODER)), facts, FakeFrames())
    assert histogram.shape == (6, 256)
    assert histogram[0, :5].tolist() == [0, 1, 0, 0, 0]
    assert histogram[4, :5].tolist() == [0, 0, 0, 0, 1]
    assert histogram[3, :5].tolist() == [0, 0.5, 0, 0, 0.5]  # one channel of b and one of c
    torch.testing.assert_close(histogram[5, :5], torch.tensor([0, 0.75, 0, 0, 0.25]))


def test_channels_beyond_those_of_an_animal_have_no_weight(tmp_path):
    cohort = cohort_of(tmp_path / "cohort", {"large": 4, "small": 2})
    facts = cohort_facts(cohort, ["small", "large"])
    assert facts.matching.tolist() == [[0, 1, -1, -1], [0, 1, 2, 3]]
    assert facts.slots == 4
    assert facts.weight.sum(1).tolist() == [2, 4]
    assert facts.normal == ("small", "large")
    for name, slots in (("large", [5, 0, 1, 2]), ("small", [3, -1])):
        cohort.animal(name).set_alignment(slots, 6)
    facts = cohort_facts(cohort, ["small", "large"])
    assert facts.matching.tolist() == [[3, -1, -1, -1], [5, 0, 1, 2]]


def test_channels_set_apart_have_no_weight():
    assert FACTS.weight.tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def test_sizes_are_those_of_the_cohort(tmp_path):
    clock = Clock(48000.0, 240)
    cohort = cohort_of(tmp_path / "cohort", {"large": 4, "small": 2}, clock)
    facts = cohort_facts(cohort, ["small", "large"])
    for name, slots in (("large", [5, 0, 1, 2]), ("small", [3, -1])):
        cohort.animal(name).set_alignment(slots, 6)
    aligned = cohort_facts(cohort, ["small", "large"])
    made = config_for(cohort, aligned, ENCODER, ThetaConfig(parameters=2), seed=7)
    assert (made.channels, made.clock, made.encoder) == (6, clock, ENCODER)
    assert made.condition == ThetaConfig(animals=2, parameters=2, seed=7)
    assert config_for(cohort, facts).condition == ThetaConfig(animals=2)
    branches = config_for(cohort, aligned, ENCODER, BranchesConfig())
    assert (branches.channels, branches.condition.animals) == (4, 2)
    assert config_for(cohort, facts, condition=NoCondition()).channels == 4
    with pytest.raises(ValueError, match="needs thresholds, which small, large lacks"):
        config_for(cohort, facts, condition=ThresholdsConfig())
    measured = dataclasses.replace(facts, thresholds_db_spl=torch.ones(2, 3))
    with pytest.raises(ValueError, match="needs thresholds"):
        config_for(cohort, measured, condition=ThresholdsConfig())


def test_channels_are_brought_to_those_that_predict_them():
    torch.manual_seed(0)
    model = ResponseModel(beta_icnet(1, 6, 2, encoder=ENCODER))
    with torch.no_grad():
        model.readout.weight *= 40
    sound, theta = 3 * torch.randn(6, 32 * 164), torch.full((1, 1, 2), 0.4)
    subject, planted = Subjects(theta=theta), torch.tensor([4, 2, 0, 5])
    predicted = model(sound, dataclasses.replace(subject, matching=planted[None]))
    probability = predicted.log_probabilities()[:, 0].exp().transpose(-1, -2)
    counts = torch.distributions.Categorical(probs=probability).sample()
    before = torch.tensor([1, 1, -1, 1])
    found = rematch(model, sound, counts, subject, before)
    assert found.tolist() == [4, 2, -1, 5]
