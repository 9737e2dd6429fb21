"""Readouts of counts: what they say of counts that are given, and where they begin."""

import torch

from icsim.models.conditions import Condition
from icsim.models.readouts.categorical import Categorical, CategoricalConfig
from icsim.models.readouts.poisson import Poisson, PoissonConfig
from icsim.models.subjects import Subjects


def test_poisson_counts_cost_what_their_distribution_says():
    torch.manual_seed(0)
    readout, features = Poisson(PoissonConfig(classes=9), 5, 3), torch.randn(2, 1, 5, 7)
    counts, weight = torch.randint(0, 6, (2, 1, 3, 7)), torch.rand(2, 1, 3)
    predicted = readout(features)
    each = -torch.distributions.Poisson(predicted.log_rate.exp()).log_prob(counts.float())
    expected = (each.sum(-1) * weight).sum((0, 2))
    torch.testing.assert_close(predicted.nats(counts, weight), expected)


def test_counts_beyond_the_last_class_belong_to_it_at_the_start():
    readout = Categorical(CategoricalConfig(classes=3), 4, 1)
    readout.start_at(torch.tensor([[0.5, 0.2, 0.1, 0.15, 0.05]]))
    start = readout(torch.zeros(1, 1, 4, 1)).log_probabilities().exp().flatten()
    torch.testing.assert_close(start, torch.tensor([0.5, 0.2, 0.3]))


def test_what_is_left_out_of_a_frame_is_its_start():
    latent = torch.randn(2, 3, 8)
    kept = Condition().features(latent, Subjects(), crop=5)
    assert torch.equal(kept, latent[:, None, :, 5:])
