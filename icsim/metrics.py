"""How well a predicted distribution of counts agrees with two trials of the same sound."""

import dataclasses

import torch
from torch import Tensor

from .counts import LARGEST_COUNT


@dataclasses.dataclass(frozen=True)
class Repeatability:
    """What two trials of one sound say about each channel."""

    signal: Tensor
    """Covariance of the trials: the variance that a sound explains, `(C,)`."""
    noise: Tensor
    """Half the mean squared difference of the trials, `(C,)`."""
    correlation: Tensor
    """Correlation of the trials, `(C,)`; zero for a channel that never changes."""


def repeatability(first: Tensor, second: Tensor) -> Repeatability:
    """Signal and noise of each channel: counts of two trials, `(C, N)` each.

    Raises:
        ValueError: If the trials differ in shape.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"two trials of equal shape (C, N) are needed, got {tuple(first.shape)} "
            f"and {tuple(second.shape)}"
        )
    first, second = _clipped(first), _clipped(second)
    centred = [trial - trial.mean(-1, keepdim=True) for trial in (first, second)]
    signal = (centred[0] * centred[1]).mean(-1)
    noise = 0.5 * (first - second).square().mean(-1)
    scale = (centred[0].square().mean(-1) * centred[1].square().mean(-1)).sqrt()
    return Repeatability(signal, noise, torch.where(scale > 0, signal / scale.clamp(min=1e-12), 0))


def feve(expected: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Fraction of explainable variance explained, pooled over channels with any.

    Args:
        expected: Mean of the predicted distribution, never a sample, `(C, N)`.
        first: Counts of one trial, `(C, N)`.
        second: Counts of another trial of the same sound, `(C, N)`.

    Returns:
        A scalar: 1 for the true mean, 0 for a constant at each channel's mean rate, negative for
        worse.

    Raises:
        ValueError: If shapes differ, or no channel has a repeatable response.
    """
    trials = repeatability(first, second)
    if expected.shape != first.shape:
        raise ValueError(f"prediction {tuple(expected.shape)} and counts {tuple(first.shape)}")
    errors = [(expected - _clipped(trial)).square().mean(-1) for trial in (first, second)]
    unexplained = (errors[0] + errors[1]) / 2 - trials.noise
    use = trials.signal > 0
    if not bool(use.any()):
        raise ValueError("no channel responds repeatably to this sound: FEVE is undefined")
    return 1 - unexplained[use].sum() / trials.signal[use].sum()


def histogram_divergence(probability: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """KL divergence of predicted from true histograms of counts, weighted by signal.

    Args:
        probability: Predicted distribution, `(C, K, N)`.
        first: Counts of one trial, `(C, N)`.
        second: Counts of another trial, `(C, N)`.

    Returns:
        Nats, a scalar; below 2e-4 on 30 s for a perfect model.
    """
    classes = probability.shape[-2]
    counts = torch.cat([_clipped(first), _clipped(second)], -1)
    true = torch.stack([(counts == k).float().mean(-1) for k in range(classes)], -1)
    predicted = probability.mean(-1).clamp(min=1e-12)
    nats = torch.where(true > 0, true * (true.clamp(min=1e-12) / predicted).log(), 0).sum(-1)
    weight = repeatability(first, second).signal.clamp(min=0)
    return (nats * weight).sum() / weight.sum().clamp(min=1e-12)


def _clipped(counts: Tensor) -> Tensor:
    return counts.float().clamp(max=LARGEST_COUNT)
