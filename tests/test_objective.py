"""Each term of the midbrain's objective, against numbers found by hand."""

import math

import pytest
import torch
from torch.nn import functional

from icsim.objective import cross_entropy, listener_divergence, threshold_penalty


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counts() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 5, (2, 3, 4, 6), generator=generator, dtype=torch.uint8)


def test_cross_entropy_is_torchs_own(logits, counts):
    heard = torch.ones(2, 3, dtype=torch.bool)
    expected = functional.cross_entropy(logits.movedim(3, 1), counts.long())
    torch.testing.assert_close(cross_entropy(logits, counts, heard), expected)


def test_cross_entropy_of_chance_is_the_logarithm_of_the_classes(logits, counts):
    nats = cross_entropy(torch.zeros_like(logits), counts, torch.ones(2, 3, dtype=torch.bool))
    assert nats.item() == pytest.approx(math.log(5))


def test_cross_entropy_ignores_who_did_not_hear(logits, counts):
    heard = torch.tensor([[True, False, True], [False, False, True]])
    nats = cross_entropy(logits, counts, heard)
    logits.requires_grad_()
    other = torch.where(heard[..., None, None], counts, 4 - counts)
    (gradient,) = torch.autograd.grad(cross_entropy(logits, other, heard), logits)
    assert torch.equal(cross_entropy(logits, other, heard), nats)
    assert not gradient[~heard].any()
    expected = functional.cross_entropy(logits[heard].movedim(2, 1), counts[heard].long())
    torch.testing.assert_close(nats, expected)


def test_cross_entropy_of_nobody_is_zero(logits, counts):
    logits.requires_grad_()
    nats = cross_entropy(logits, counts, torch.zeros(2, 3, dtype=torch.bool))
    nats.backward()
    assert nats == 0
    assert not logits.grad.any()


def test_counts_above_four_are_four(logits, counts):
    heard = torch.ones(2, 3, dtype=torch.bool)
    many = torch.where(counts == 4, torch.tensor(200, dtype=torch.uint8), counts)
    assert (many == 200).any()
    assert torch.equal(cross_entropy(logits, many, heard), cross_entropy(logits, counts, heard))


def test_cross_entropy_is_computed_in_float32(logits, counts):
    heard = torch.ones(2, 3, dtype=torch.bool)
    low = logits.bfloat16()
    assert torch.equal(cross_entropy(low, counts, heard), cross_entropy(low.float(), counts, heard))


def test_the_divergence_of_listeners_is_zero_at_the_prior():
    for animals in (1, 4, 9):
        deviation = torch.full((animals, 3), animals**-0.5)
        assert listener_divergence(deviation).abs() < 1e-6


def test_the_divergence_of_listeners_is_that_of_normal_distributions():
    deviation = torch.tensor([[0.03, 0.2, 0.9], [0.5, 0.1, 2.0]])
    prior = torch.distributions.Normal(0.0, 2**-0.5)
    expected = torch.distributions.kl_divergence(torch.distributions.Normal(0.0, deviation), prior)
    assert (expected > 0).all()
    torch.testing.assert_close(listener_divergence(deviation), expected.sum(1).mean())


def test_the_divergence_of_listeners_pulls_towards_the_prior():
    deviation = torch.tensor([[0.1, 0.5, 0.9]] * 4, dtype=torch.float64, requires_grad=True)
    listener_divergence(deviation).backward()
    assert (deviation.grad[:, 0] < 0).all()
    assert deviation.grad[:, 1].abs().max() < 1e-9
    assert (deviation.grad[:, 2] > 0).all()
    assert torch.autograd.gradcheck(listener_divergence, deviation)


def test_the_threshold_penalty_of_two_animals_by_hand():
    thresholds = torch.tensor([[20.0, 30.0], [50.0, 70.0]])
    theta = torch.tensor([[0.1, 0.2, 0.3], [0.2, 0.1, 0.4]])
    # Thresholds: √((30² + 40²) / 2) / 100 = 0.35355; θ: 0.1 / √(3 / 6) = 0.14142.
    expected = 0.353553 - 0.141421
    assert threshold_penalty(theta, thresholds).item() == pytest.approx(expected, abs=1e-5)


def test_the_threshold_penalty_vanishes_far_apart_and_not_together():
    thresholds = torch.tensor([[20.0] * 5, [60.0] * 5])
    apart, together = torch.tensor([[0.0] * 6, [1.0] * 6]), torch.full((2, 6), 0.4)
    assert threshold_penalty(apart, thresholds) == 0
    assert threshold_penalty(together, thresholds).item() == pytest.approx(0.4)
    assert threshold_penalty(together, thresholds[[0, 0]]) == 0


def test_the_threshold_penalty_is_the_mean_over_pairs():
    theta, thresholds = torch.rand(4, 6), 100 * torch.rand(4, 5)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    each = [threshold_penalty(theta[[i, j]], thresholds[[i, j]]) for i, j in pairs]
    torch.testing.assert_close(threshold_penalty(theta, thresholds), torch.stack(each).mean())


def test_the_threshold_penalty_pushes_animals_apart():
    theta = torch.tensor([[0.4, 0.5], [0.5, 0.4]], requires_grad=True)
    threshold_penalty(theta, torch.tensor([[10.0], [90.0]])).backward()
    assert (theta.grad[0] * torch.tensor([1, -1]) > 0).all()
    assert torch.equal(theta.grad[0], -theta.grad[1])


def test_the_threshold_penalty_of_one_animal_is_refused():
    with pytest.raises(ValueError, match="there is only one"):
        threshold_penalty(torch.rand(1, 6), torch.rand(1, 5))
