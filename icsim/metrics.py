"""How well a predicted distribution of counts agrees with repeated trials of the same sound.

Counts are taken as they are: where a model knows no more than `K − 1` spikes, clamp them to it.
"""

import dataclasses

import torch
from torch import Tensor


def expected_counts(log_probability: Tensor) -> Tensor:
    """Mean count, the last of K classes taken as K − 1: `(*, K, N)` to `(*, N)`."""
    counts = torch.arange(log_probability.shape[-2], device=log_probability.device)
    return (log_probability.exp() * counts.unsqueeze(-1)).sum(-2)


@dataclasses.dataclass(frozen=True)
class Repeatability:
    """What trials of one sound say about each channel."""

    signal: Tensor
    """Mean covariance of two trials: the variance that a sound explains, `(C,)`. Source: signal
    power of Sahani & Linden 2003."""
    noise: Tensor
    """Variance over trials, unbiased, averaged over bins, `(C,)`."""
    correlation: Tensor
    """Mean correlation of two trials, `(C,)`; zero for a channel that never changes."""


def repeatability(trials: Tensor) -> Repeatability:
    """Signal and noise of each channel, from the counts of R ≥ 2 trials, `(R, C, N)`.

    Raises:
        ValueError: If there are no two trials.
    """
    if trials.ndim != 3 or len(trials) < 2:
        raise ValueError(f"at least two trials (R, C, N) are needed, got {tuple(trials.shape)}")
    trials = trials.float()
    pairs = len(trials) * (len(trials) - 1)
    centred = trials - trials.mean(-1, keepdim=True)
    power = centred.square().mean(-1)
    signal = (centred.sum(0).square().mean(-1) - power.sum(0)) / pairs
    noise = (trials - trials.mean(0)).square().sum(0).mean(-1) / (len(trials) - 1)
    unit = centred / power.sqrt().clamp(min=1e-12)[..., None]
    alike = unit.sum(0).square().mean(-1) - unit.square().mean(-1).sum(0)
    return Repeatability(signal, noise, alike / pairs)


def feve(expected: Tensor, trials: Tensor) -> Tensor:
    """Fraction of explainable variance explained, pooled over channels with any.

    Args:
        expected: Mean of the predicted distribution, never a sample, `(C, N)`.
        trials: Counts of R ≥ 2 trials of the same sound, `(R, C, N)`.

    Returns:
        A scalar: 1 for the true mean, 0 for a constant at each channel's mean rate, negative for
        worse.

    Raises:
        ValueError: If shapes differ, or no channel has a repeatable response.
    """
    shared = repeatability(trials)
    _require_same(expected, trials)
    unexplained = (expected - trials).square().mean((0, -1)) - shared.noise
    use = shared.signal > 0
    if not bool(use.any()):
        raise ValueError("no channel responds repeatably to this sound: FEVE is undefined")
    return 1 - unexplained[use].sum() / shared.signal[use].sum()


def normalised_correlation(expected: Tensor, trials: Tensor) -> Tensor:
    """Correlation of a prediction with the mean over trials, over the largest that noise allows.

    Args:
        expected: Mean of the predicted distribution, `(C, N)`.
        trials: Counts of R ≥ 2 trials of the same sound, `(R, C, N)`.

    Returns:
        CCnorm of each channel, near 1 for the true mean whatever its gain and offset; not a number
        where nothing is repeatable or the prediction is constant. `(C,)`

    Source: Schoppe et al. 2016, Frontiers in Computational Neuroscience 10:10.
    """
    signal = repeatability(trials).signal
    _require_same(expected, trials)
    mean = trials.float().mean(0)
    predicted = expected - expected.mean(-1, keepdim=True)
    covariance = (predicted * mean).mean(-1)
    power = predicted.square().mean(-1) * signal.clamp(min=0)
    return torch.where(power > 0, covariance / power.clamp(min=1e-24).sqrt(), torch.nan)


def histogram_divergence(probability: Tensor, trials: Tensor) -> Tensor:
    """KL divergence of predicted from true histograms of counts, weighted by signal.

    Args:
        probability: Predicted distribution, `(C, K, N)`.
        trials: Counts of R ≥ 2 trials, `(R, C, N)`; those above K − 1 are in its class.

    Returns:
        Nats, a scalar; below 2e-4 on 30 s for a perfect model.
    """
    classes = probability.shape[-2]
    counts = trials.clamp(max=classes - 1)
    true = torch.stack([(counts == k).float().mean((0, -1)) for k in range(classes)], -1)
    predicted = probability.mean(-1).clamp(min=1e-12)
    nats = torch.where(true > 0, true * (true.clamp(min=1e-12) / predicted).log(), 0).sum(-1)
    weight = repeatability(counts).signal.clamp(min=0)
    return (nats * weight).sum() / weight.sum().clamp(min=1e-12)


def _require_same(expected: Tensor, trials: Tensor) -> None:
    if expected.shape != trials.shape[1:]:
        raise ValueError(f"prediction {tuple(expected.shape)} and counts {tuple(trials.shape)}")
