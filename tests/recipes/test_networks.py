"""Three kinds of network, asked in one way, and begun from another one."""

import dataclasses

import pytest
import torch

from icsim.icnet import EncoderConfig
from icsim.recording import Recording
from icsim.sound import Sound
from icsim.store import create
from icsim.weights import save_network
from recipes import networks
from recipes.networks import Brains

ENCODER = EncoderConfig(filters=4, kernels=4, size=4, bottleneck=4, input_scale=20.0)
MATCHING = torch.tensor([[0, 1, 2], [3, -1, 4], [1, 1, 3]])
KNOWN = Brains(["a", "b", "c"], MATCHING, 5, torch.tensor([[30.0] * 5, [60.0] * 5, [31.0] * 5]))


class FakeFrames:
    """A few frames of counts, as `Frames` reads them."""

    def __len__(self):
        return 8

    def read(self, indices):
        counts = torch.ones(len(indices), 3, 3, 6, dtype=torch.uint8)
        counts[:, 1] = 4
        heard = torch.ones(len(indices), 3, dtype=torch.bool)
        return {"counts": counts, "heard": heard}


@pytest.mark.parametrize("kind", ["beta", "abr", "icnet"])
def test_some_animals_answer_as_among_all(kind):
    torch.manual_seed(0)
    network = networks.make(kind, KNOWN, ENCODER)
    sound, hours = torch.randn(2, 2048 + 320), torch.rand(2, 3)
    every = networks.predict(network, KNOWN, sound, hours).log_probabilities()
    assert every.shape == (2, 3, 3, 5, 10)
    some = torch.tensor([2, 0])
    part = networks.predict(network, KNOWN, sound, hours[:, some], some).log_probabilities()
    torch.testing.assert_close(part, every[:, some])
    latent = network.latent(sound)
    again = networks.predict_from_latent(network, KNOWN, latent, hours[:, some], some)
    torch.testing.assert_close(again.log_probabilities(), part)


@pytest.mark.parametrize("kind", ["beta", "abr", "icnet"])
def test_the_context_of_a_frame_is_left_out_and_nothing_else(kind):
    torch.manual_seed(0)
    network = networks.make(kind, KNOWN, ENCODER)
    sound = torch.randn(1, 2048 + 320, requires_grad=True)
    predicted = networks.predict(network, KNOWN, sound, torch.zeros(1, 3)).log_probabilities()
    assert predicted.shape[-1] == 10
    for bin in (0, 4, 9):
        (reach,) = torch.autograd.grad(predicted[0, 0, 0, 0, bin], sound, retain_graph=True)
        assert reach.nonzero()[:, 1].max() == 2048 + 32 * (bin + 1) - 1


@pytest.mark.parametrize("kind", ["beta", "abr"])
def test_networks_begin_from_an_icnet_slot_by_slot(kind, tmp_path):
    torch.manual_seed(0)
    two = Brains(["b", "a"], MATCHING[[1, 0]], 5, None)
    other = networks.make("icnet", two, ENCODER)
    with torch.no_grad():
        other.decoder.bias.normal_()
    path = tmp_path / "icnet.safetensors"
    save_network(path, other, **networks.brain_facts(two))
    network = networks.make(kind, KNOWN, ENCODER)
    networks.start(network, KNOWN, FakeFrames(), str(path))
    for mine, theirs in zip(network.encoder.parameters(), other.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    rows = network.decoder.weight.view(5, 5, 4)
    branches = other.decoder.weight.view(2, 3, 5, 4)
    for slot, (branch, channel) in {0: (1, 0), 1: (1, 1), 2: (1, 2), 3: (0, 0), 4: (0, 2)}.items():
        assert torch.equal(rows[slot], branches[branch, channel])
    larger = networks.make(kind, KNOWN, dataclasses.replace(ENCODER, kernels=6))
    with pytest.raises(ValueError, match="encoder is of other sizes"):
        networks.start(larger, KNOWN, FakeFrames(), str(path))


def test_slots_that_no_channel_takes_begin_at_the_mean_histogram():
    network = networks.make("abr", dataclasses.replace(KNOWN, slots=6), ENCODER)
    known = dataclasses.replace(KNOWN, slots=6)
    frequencies = networks.count_frequencies(network, known, FakeFrames())
    assert frequencies[0].tolist() == [0, 1, 0, 0, 0]
    assert frequencies[4].tolist() == [0, 0, 0, 0, 1]
    assert frequencies[3].tolist() == [0, 0.5, 0, 0, 0.5]  # one channel of b and one of c
    torch.testing.assert_close(frequencies[5], torch.tensor([0, 0.75, 0, 0, 0.25]))


def test_channels_beyond_those_of_an_animal_have_no_weight(tmp_path):
    cohort = create(tmp_path / "cohort", [Sound("s", "noise", "s", "train", torch.ones(320))])
    for name, channels in (("large", 4), ("small", 2)):
        counts = [torch.ones(10, channels, dtype=torch.uint8)]
        cohort.add_animal(name, Recording("NH", "seen", None, None, channels, [(0, 0.0)], counts))
    known = networks.brains(cohort, ["small", "large"], "default", "icnet")
    assert known.matching.tolist() == [[0, 1, -1, -1], [0, 1, 2, 3]]
    assert known.slots == 4
    assert known.weight.sum(1).tolist() == [2, 4]
    for name, slots in (("large", [5, 0, 1, 2]), ("small", [3, -1])):
        cohort.animal(name).set_alignment(slots, 6)
    known = networks.brains(cohort, ["small", "large"], "default", "beta")
    assert known.matching.tolist() == [[3, -1, -1, -1], [5, 0, 1, 2]]


def test_channels_set_apart_have_no_weight():
    assert KNOWN.weight.tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def test_facts_bring_the_brains_back():
    again = networks.known_brains(networks.brain_facts(KNOWN))
    assert again.names == KNOWN.names
    assert again.slots == KNOWN.slots
    assert torch.equal(again.matching, KNOWN.matching)
    assert torch.equal(again.thresholds_db_spl, KNOWN.thresholds_db_spl)
