"""Gains and offsets of channels: planted ones are recovered, and a prior holds where nothing is."""

import pytest
import torch

from icsim.channel_gains import Prior, adapted, broad, fit_gains, learn_prior, with_gains
from icsim.models.readouts import CategoricalPrediction

CHANNELS, BINS, CLASSES = 30, 4000, 5
BROAD = broad(CLASSES)


@pytest.fixture(scope="module")
def logits():
    generator = torch.Generator().manual_seed(0)
    course = torch.randn(2, CHANNELS, 1, BINS // 2, generator=generator)
    return torch.arange(CLASSES)[:, None] * (course - 1.0)


@pytest.fixture(scope="module")
def planted():
    generator = torch.Generator().manual_seed(1)
    spread = torch.tensor([0.3, 0.5, 0.5, 0.5, 0.5])
    return BROAD.mean + spread * torch.randn(CHANNELS, CLASSES, generator=generator)


def answers(logits, gains, seed=2):
    """Counts `(B, C, N)` drawn from what a gains makes of logits."""
    shifted = gains[:, :1, None] * logits
    shifted[:, :, 1:] += gains[:, 1:, None]
    probability = shifted.softmax(2).movedim(2, -1)
    drawn = torch.multinomial(
        probability.flatten(0, 2), 1, generator=torch.Generator().manual_seed(seed)
    )
    return drawn.view(probability.shape[:3]).to(torch.uint8)


def test_planted_gains_and_offsets_are_recovered(logits, planted):
    errors = []
    for seed in range(4):
        at, covariance = fit_gains(logits, answers(logits, planted, seed), BROAD)
        errors.append((at - planted) / covariance.diagonal(dim1=1, dim2=2).sqrt())
    assert torch.stack(errors).square().mean().sqrt() == pytest.approx(1, abs=0.15)
    assert (at[:, 0] - planted[:, 0]).abs().mean() < 0.05


def test_a_model_that_is_right_is_left_as_it_is(logits):
    right = BROAD.mean.expand(CHANNELS, -1)
    at, _ = fit_gains(logits, answers(logits, right), BROAD)
    assert (at - right).abs()[:, :3].max() < 0.4
    assert (at - right).mean(0).abs().max() < 0.1


def test_few_counts_leave_the_prior(logits, planted):
    counts = answers(logits, planted)[..., :3]
    narrow = Prior(torch.tensor([0.8, 0.1, 0.2, 0.3, 0.4]), 1e-4 * torch.eye(CLASSES))
    at, covariance = fit_gains(logits[..., :3], counts, narrow)
    torch.testing.assert_close(at, narrow.mean.expand(CHANNELS, -1), atol=0.02, rtol=0)
    torch.testing.assert_close(covariance[0], narrow.covariance, atol=1e-5, rtol=0)


def test_gains_are_the_most_probable_ones(logits, planted):
    few = slice(0, 40)
    counts = answers(logits, planted)[..., few].long()
    prior = Prior(torch.tensor([0.8, 0.1, 0.2, 0.3, 0.4]), 0.2 * torch.eye(CLASSES))
    at = fit_gains(logits[..., few], counts, prior)[0].double().requires_grad_()
    shifted = at[:, :1, None] * logits[..., few].double()
    shifted = torch.cat([shifted[:, :, :1], shifted[:, :, 1:] + at[:, 1:, None]], 2)
    happened = shifted.log_softmax(2).gather(2, counts[:, :, None]).sum()
    posterior = happened - 0.5 * ((at - prior.mean).square() / 0.2).sum()
    (slope,) = torch.autograd.grad(posterior, at)
    assert slope.abs().max() < 0.1


def test_bins_that_are_correlated_weigh_less(logits, planted):
    counts = answers(logits, planted)
    covariances = [fit_gains(logits, counts, BROAD, bins)[1] for bins in (1.0, 16.0)]
    widths = [c.diagonal(dim1=1, dim2=2)[:, 0].sqrt().median() for c in covariances]
    assert (widths[1] / widths[0]).item() == pytest.approx(4, rel=0.2)


def test_predictions_have_the_gains():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 1, 3, 7, generator=generator)
    rows = torch.randn(1, 4 * CLASSES, 3, generator=generator)
    bias = torch.randn(1, 4 * CLASSES, generator=generator)
    gains = torch.rand(4, CLASSES, generator=generator)
    plain = CategoricalPrediction(features, rows, bias)
    expected = gains[:, :1, None] * plain.logits()
    expected[..., 1:, :] += gains[:, 1:, None]
    found = with_gains(plain, gains).log_probabilities()
    torch.testing.assert_close(found, expected.log_softmax(-2))
    unchanged = with_gains(plain, BROAD.mean.expand(4, -1)).log_probabilities()
    torch.testing.assert_close(unchanged, plain.log_probabilities())


def test_the_prior_is_how_much_channels_differ(logits, planted):
    learned = learn_prior(*([each] for each in fit_gains(logits, answers(logits, planted), BROAD)))
    assert learned.mean[0].item() == pytest.approx(planted[:, 0].mean().item(), abs=0.05)
    spread = learned.covariance.diagonal().sqrt()
    torch.testing.assert_close(spread[:3], planted.std(0)[:3], rtol=0.25, atol=0)


def test_a_prior_is_as_wide_as_gains_are_uncertain_where_they_hardly_differ():
    same, uncertain = BROAD.mean.expand(9, -1), 0.3 * torch.eye(CLASSES).expand(9, -1, -1)
    learned = learn_prior([same, same], [uncertain, uncertain])
    torch.testing.assert_close(learned.mean, BROAD.mean)
    torch.testing.assert_close(learned.covariance, uncertain[0])


def test_a_brain_that_differs_more_than_others_widens_its_prior(logits, planted):
    narrow = Prior(BROAD.mean, 0.01 * torch.eye(CLASSES))
    at, covariance = fit_gains(logits, answers(logits, planted), narrow)
    wider = adapted(narrow, at, covariance)
    assert torch.equal(wider.mean, narrow.mean)
    assert (wider.covariance.diagonal() > 2 * narrow.covariance.diagonal())[:3].all()
    closer, _ = fit_gains(logits, answers(logits, planted), wider)
    assert (closer - planted).abs().mean() < (at - planted).abs().mean()
    kept = adapted(narrow, narrow.mean.expand(0, -1), covariance[:0])
    torch.testing.assert_close(kept.covariance, narrow.covariance)
