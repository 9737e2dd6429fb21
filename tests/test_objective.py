"""Each term of the midbrain's objective, against numbers found by hand."""

import math

import pytest
import torch
from torch.nn import functional

from icsim.models.readouts import CategoricalPrediction, categorical
from icsim.objective import cross_entropy, listener_divergence, threshold_penalty


@pytest.fixture
def prediction() -> CategoricalPrediction:
    """Of 2 sounds, 3 animals, 4 channels and 6 bins, from 7 features."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 7, 6), (3, 20, 7), (3, 20)]
    return CategoricalPrediction(*(torch.randn(s, generator=generator) for s in shapes), 5)


@pytest.fixture
def counts() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 5, (2, 3, 4, 6), generator=generator, dtype=torch.uint8)


EVERYTHING = torch.ones(2, 3, 4)


def test_cross_entropy_is_torchs_own(prediction, counts):
    expected = functional.cross_entropy(prediction.logits().movedim(3, 1), counts.long())
    torch.testing.assert_close(cross_entropy(prediction, counts, EVERYTHING), expected)


def test_cross_entropy_has_torchs_own_gradients(prediction, counts, monkeypatch):
    monkeypatch.setitem(categorical.CHUNK, "cpu", 150)  # several chunks
    weight = torch.rand(2, 3, 4)
    parts = [part.double().requires_grad_() for part in prediction[:3]]
    doubled = CategoricalPrediction(*parts, 5)
    mine = torch.autograd.grad(3 * cross_entropy(doubled, counts, weight), parts)
    each = functional.cross_entropy(doubled.logits().movedim(3, 1), counts.long(), reduction="none")
    whole = (each.mean(-1) * weight).sum() / weight.sum()
    for found, expected in zip(mine, torch.autograd.grad(3 * whole, parts), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_rows_shared_by_all_animals_gather_all_their_gradients(prediction, counts):
    shared = prediction._replace(
        weight=prediction.weight[:1].requires_grad_(), bias=prediction.bias[:1]
    )
    (mine,) = torch.autograd.grad(cross_entropy(shared, counts, EVERYTHING), shared.weight)
    whole = functional.cross_entropy(shared.logits().movedim(3, 1), counts.long())
    torch.testing.assert_close(mine, torch.autograd.grad(whole, shared.weight)[0])


def test_cross_entropy_of_each_animal_is_its_own(prediction, counts):
    by_animal = prediction.nats(counts, EVERYTHING)
    assert by_animal.shape == (3,)
    for animal in range(3):
        part = CategoricalPrediction(
            prediction.features[:, [animal]],
            prediction.weight[[animal]],
            prediction.bias[[animal]],
            5,
        )
        alone = part.nats(counts[:, [animal]], EVERYTHING[:, [animal]])
        torch.testing.assert_close(by_animal[[animal]], alone)


def test_cross_entropy_of_chance_is_the_logarithm_of_the_classes(prediction, counts):
    chance = CategoricalPrediction(*(torch.zeros_like(part) for part in prediction[:3]), 5)
    assert cross_entropy(chance, counts, EVERYTHING).item() == pytest.approx(math.log(5))


def test_cross_entropy_ignores_what_has_no_weight(prediction, counts):
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])[..., None] * torch.tensor(
        [1, 1, 0, 1]
    )
    found = cross_entropy(prediction, counts, weight)
    features = prediction.features.clone().requires_grad_()
    other = torch.where((weight > 0)[..., None], counts, 4 - counts)
    again = cross_entropy(prediction._replace(features=features), other, weight)
    (gradient,) = torch.autograd.grad(again, features)
    torch.testing.assert_close(again.detach(), found)
    assert not gradient[0, 1].any()
    assert not gradient[1, :2].any()
    kept = weight.bool()
    expected = functional.cross_entropy(
        prediction.logits()[kept].movedim(1, 1), counts[kept].long()
    )
    torch.testing.assert_close(found, expected)


def test_cross_entropy_of_nobody_is_zero(prediction, counts):
    features = prediction.features.clone().requires_grad_()
    found = cross_entropy(prediction._replace(features=features), counts, 0 * EVERYTHING)
    found.backward()
    assert found == 0
    assert not features.grad.any()


def test_counts_above_four_are_four(prediction, counts):
    many = torch.where(counts == 4, torch.tensor(200, dtype=torch.uint8), counts)
    assert (many == 200).any()
    few = cross_entropy(prediction, counts, EVERYTHING)
    assert torch.equal(cross_entropy(prediction, many, EVERYTHING), few)


def test_cross_entropy_of_low_precision_features_is_summed_in_float32(prediction, counts):
    low = prediction._replace(features=prediction.features.bfloat16())
    found = cross_entropy(low, counts, EVERYTHING)
    assert found.dtype == torch.float32
    rounded = [part.bfloat16().float() for part in prediction[:2]]
    exact = CategoricalPrediction(*rounded, prediction.bias, 5)
    expected = cross_entropy(exact, counts, EVERYTHING)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)


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
