"""Scores of the truth, of chance, and of models in between."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from icsim.metrics import (
    expected_counts,
    feve,
    histogram_divergence,
    normalised_correlation,
    repeatability,
)

CHANNELS, BINS = 8, 22_888  # 30 s
DISPERSION = 2.0
"""Counts of mean λ have the variance λ + λ² / 2, as those of neurons that burst."""


def over_dispersed(rate: np.ndarray, rng: np.random.Generator, most: int = 4) -> torch.Tensor:
    drawn = rng.negative_binomial(DISPERSION, DISPERSION / (DISPERSION + rate))
    return torch.from_numpy(drawn).clamp(max=most)


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    """What a perfect model predicts: the distribution of counts, `(C, K, N)`."""
    below = scipy.stats.nbinom.pmf(
        np.arange(4)[:, None], DISPERSION, DISPERSION / (DISPERSION + rates()[:, None])
    )
    return torch.from_numpy(np.concatenate([below, 1 - below.sum(1, keepdims=True)], 1)).float()


def rates() -> np.ndarray:
    """Spikes a bin, each channel with its own mean and its own slow course, `(C, N)`."""
    rng = np.random.default_rng(0)
    course = np.repeat(rng.normal(size=(CHANNELS, -(-BINS // 20))), 20, axis=1)[:, :BINS]
    return np.linspace(0.2, 1.0, CHANNELS)[:, None] * np.exp(0.8 * course)


@pytest.fixture(scope="module")
def trials() -> torch.Tensor:
    rng = np.random.default_rng(1)
    return torch.stack([over_dispersed(rates(), rng), over_dispersed(rates(), rng)])


def mean_count(probability: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ckn,k->cn", probability, torch.arange(5.0))


def test_the_true_mean_explains_everything_explainable(truth, trials):
    assert feve(mean_count(truth), trials).item() == pytest.approx(1, abs=0.03)


def test_a_constant_rate_explains_nothing(trials):
    constant = torch.cat(list(trials), -1).float().mean(-1, keepdim=True)
    assert feve(constant.expand(-1, BINS), trials).item() == pytest.approx(0, abs=1e-3)


def test_a_sample_of_the_truth_scores_far_below_its_mean(trials):
    sample = over_dispersed(rates(), np.random.default_rng(2)).float()
    # A sample's own noise counts against it: 1 − noise / signal.
    shared = repeatability(trials)
    expected = 1 - (shared.noise.sum() / shared.signal.sum()).item()
    assert feve(sample, trials).item() == pytest.approx(expected, abs=0.1)
    assert feve(sample, trials) < 0


def test_half_the_truth_explains_three_quarters(truth, trials):
    mean = mean_count(truth)
    shrunk = mean.mean(-1, keepdim=True) + 0.5 * (mean - mean.mean(-1, keepdim=True))
    assert feve(shrunk, trials).item() == pytest.approx(0.75, abs=0.03)


def test_pooled_feve_is_the_covariance_weighted_mean_of_the_channels(truth, trials):
    expected = mean_count(truth) ** 0.5
    each = [feve(expected[[i]], trials[:, [i]]) for i in range(CHANNELS)]
    signal = repeatability(trials).signal
    weighted = (torch.stack(each) * signal).sum() / signal.sum()
    torch.testing.assert_close(feve(expected, trials), weighted)
    assert torch.stack(each).std() > 0.01


def test_channels_without_a_signal_do_not_count(truth, trials):
    mean, first = mean_count(truth), trials[0]
    opposed = first[:1], first[:1].max() - first[:1]
    with_it = torch.stack([torch.cat([t, o]) for t, o in zip(trials, opposed, strict=True)])
    nonsense = torch.cat([mean, torch.full((1, BINS), 3.0)])
    assert torch.equal(feve(nonsense, with_it), feve(mean, trials))


def test_counts_beyond_the_last_class_are_in_it_where_there_are_classes(truth):
    rng = np.random.default_rng(1)
    trials = torch.stack([over_dispersed(rates(), rng, most=99) for _ in range(2)])
    assert trials.max() > 4
    clipped = trials.clamp(max=4)
    scores = [histogram_divergence(truth, counts) for counts in (trials, clipped)]
    assert torch.equal(*scores)
    assert (repeatability(trials).signal > repeatability(clipped).signal).all()
    assert feve(trials.float().mean(0), trials) > feve(clipped.float().mean(0), trials)


def test_expected_counts_are_the_mean_of_the_classes():
    probability = torch.tensor([[0.5, 0.2], [0.5, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.8]])
    torch.testing.assert_close(expected_counts(probability.log()), torch.tensor([0.5, 3.2]))


def test_repeatability_by_hand():
    first = torch.tensor([[0, 2, 0, 2], [1, 1, 1, 1]])
    second = torch.tensor([[0, 2, 2, 4], [0, 1, 2, 3]])
    found = repeatability(torch.stack([first, second]))
    # Deviations −1, 1, −1, 1 and −2, 0, 0, 2; differences 0, 0, 2, 2.
    assert found.signal.tolist() == pytest.approx([1.0, 0.0])
    assert found.noise.tolist() == pytest.approx([1.0, 0.5 * (1 + 0 + 1 + 4) / 4])
    assert found.correlation.tolist() == pytest.approx([1 / 2**0.5, 0.0])


def test_all_pairs_of_trials_count():
    many = torch.stack([over_dispersed(rates(), np.random.default_rng(n)) for n in range(5)])
    pairs = [repeatability(many[list(p)]) for p in itertools.combinations(range(5), 2)]
    for name in ("signal", "noise", "correlation"):
        mean = torch.stack([getattr(pair, name) for pair in pairs]).mean(0)
        torch.testing.assert_close(getattr(repeatability(many), name), mean, rtol=1e-4, atol=1e-5)


def test_the_normalised_correlation_ignores_gain_and_offset_as_feve_does_not(truth, trials):
    mean = mean_count(truth)
    assert normalised_correlation(mean, trials).numpy() == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(
        normalised_correlation(0.1 * mean + 3, trials), normalised_correlation(mean, trials)
    )
    assert feve(0.1 * mean + 3, trials) < 0
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    assert normalised_correlation(noise, trials).abs().max() < 0.1
    assert normalised_correlation(torch.ones_like(mean), trials).isnan().all()


def test_the_normalised_correlation_is_that_of_schoppe(truth, trials):
    many = torch.stack([over_dispersed(rates(), np.random.default_rng(n)) for n in range(4)])
    counts, predicted = many.double().numpy(), mean_count(truth).double().numpy() ** 2
    for channel in range(CHANNELS):
        own, mean = counts[:, channel], counts[:, channel].mean(0)
        power = (4 * mean.var() - own.var(1).mean()) / 3
        covariance = np.cov(predicted[channel], mean, bias=True)[0, 1]
        expected = covariance / np.sqrt(predicted[channel].var() * power)
        found = normalised_correlation(torch.tensor(predicted), many)[channel]
        assert found.item() == pytest.approx(expected, rel=1e-4)


def test_feve_without_a_repeatable_channel_is_refused():
    silent = torch.zeros(3, 100)
    with pytest.raises(ValueError, match="FEVE is undefined"):
        feve(silent, silent.expand(2, -1, -1))


def test_trials_and_predictions_of_other_shapes_are_refused(trials):
    with pytest.raises(ValueError, match="at least two trials"):
        repeatability(trials[:1])
    with pytest.raises(ValueError, match="at least two trials"):
        repeatability(trials[0])
    with pytest.raises(ValueError, match="prediction"):
        feve(trials[0][:1].float(), trials)


def test_a_perfect_model_has_nearly_no_histogram_divergence(truth, trials):
    assert 0 < histogram_divergence(truth, trials) < 2e-4


def test_the_histogram_of_a_wrong_dispersion_diverges(truth, trials):
    below = scipy.stats.poisson.pmf(np.arange(4)[:, None], rates()[:, None])
    poisson = torch.from_numpy(np.concatenate([below, 1 - below.sum(1, keepdims=True)], 1)).float()
    assert histogram_divergence(poisson, trials) > 1e-3
    assert histogram_divergence(truth.flip(1), trials) > 0.1


def test_the_histogram_divergence_is_weighted_by_signal():
    # Channel 0 repeats (signal 1), channel 1 does not; both are predicted wrongly.
    counts = torch.tensor([[0, 2, 0, 2], [1, 1, 1, 1]])
    probability = torch.full((2, 5, 4), 0.2)
    probability[1] = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6])[:, None]
    expected = 2 * 0.5 * np.log(0.5 / 0.2)
    divergence = histogram_divergence(probability, counts.expand(2, -1, -1))
    assert divergence.item() == pytest.approx(expected)


def test_a_histogram_that_excludes_what_happened_has_a_finite_divergence():
    counts = torch.tensor([[0, 2, 0, 2]])
    never = torch.zeros(1, 5, 4)
    never[:, 0] = 1
    assert histogram_divergence(never, counts.expand(2, -1, -1)).isfinite()
