"""Gain and offset of each channel of one brain, which no hearing loss explains.

How many units an electrode reaches, and how well, differs from channel to channel and from brain
to brain. A model of all brains cannot know it of a new one, and θ must not be made to say it, as an
aid has no use for it. So it is learned and fitted beside θ, as nuisance, with a prior that says how
much channels differ: their log-odds of counts, as the model has them, are multiplied by a gain and
shifted by an offset.

Gains are a tensor `(C, K)`: the gain of each channel, 1 where the model is right, then the
offsets of the log-odds of 1, 2, … K − 1 spikes against none, 0 where it is right.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .models.readouts import CategoricalPrediction, Prediction, require_categorical


@dataclasses.dataclass(frozen=True)
class Prior:
    """Normal density of the gain and offsets of a channel."""

    mean: Tensor
    """`(K,)`."""
    covariance: Tensor
    """`(K, K)`."""


def broad(classes: int) -> Prior:
    """What is assumed where nothing was learned: odds differ by a factor of e (chosen here).

    Args:
        classes: K.
    """
    return Prior(torch.tensor([1.0] + [0.0] * (classes - 1)), torch.eye(classes))


@dataclasses.dataclass(frozen=True)
class ChannelGainsConfig:
    """How many channels have gains: those of the animals that a model is trained on."""

    animals: int = 1
    """A."""
    channels: int = 1
    """Most channels of an animal."""

    def __post_init__(self):
        if min(self.animals, self.channels) < 1:
            raise ValueError(f"animals and channels must be positive: {self}")


class LearnedGains(nn.Module):
    """Gains and offsets of the channels of the animals that a model is trained on.

    Args:
        config: How many.
        classes: K.
    """

    def __init__(self, config: ChannelGainsConfig, classes: int):
        super().__init__()
        self.deviation = nn.Parameter(torch.zeros(config.animals, config.channels, classes))

    def forward(self, animals: Tensor) -> Tensor:
        """Of some of the animals, `(A, C, K)`."""
        log_gain, offset = self.deviation[animals].split([1, self.deviation.shape[-1] - 1], -1)
        return torch.cat([log_gain.exp(), offset], -1)

    def penalty(self, weight: Tensor) -> Tensor:
        """Mean over channels of half their squared log-gains and offsets.

        Args:
            weight: One for each channel that counts, `(A, C)`.
        """
        return 0.5 * (self.deviation.square().sum(-1) * weight).sum() / weight.sum()

    @torch.no_grad()
    def centre(self, weight: Tensor) -> None:
        """Take from all channels of an animal what they have in common, which is for θ to say.

        Args:
            weight: One for each channel that counts, `(A, C)`.
        """
        counted = weight.unsqueeze(-1)
        total = (self.deviation * counted).sum(1, keepdim=True)
        self.deviation.sub_(total / counted.sum(1, keepdim=True).clamp(min=1))


def with_gains(prediction: Prediction, gains: Tensor) -> CategoricalPrediction:
    """A prediction with gains and offsets of its channels, `(C, K)` or, by animal, `(A, C, K)`.

    Only the readout's rows change, so that it costs nothing, and gradients reach θ as before.

    Raises:
        ValueError: If its counts are no classes.
    """
    prediction = require_categorical(prediction)
    gain = gains[..., :1]
    offset = torch.cat([torch.zeros_like(gain), gains[..., 1:]], -1)
    rows = prediction.weight.unflatten(1, (-1, prediction.classes))
    bias = prediction.bias.unflatten(1, (-1, prediction.classes))
    return prediction._replace(
        weight=(gain[..., None] * rows).flatten(1, 2),
        bias=(gain * bias + offset).flatten(1, 2),
    )


def fit_gains(
    logits: Tensor,
    counts: Tensor,
    prior: Prior,
    correlated_bins: float = 1.0,
    start: Tensor | None = None,
    iterations: int = 20,
) -> tuple[Tensor, Tensor]:
    """The most probable gains and offsets, given what channels answered.

    The negative log-posterior is convex; Newton's method finds its minimum, channel by channel.

    Args:
        logits: Of counts, as the model has them, `(B, C, K, N)`.
        counts: Spikes in each bin, any integer type, `(B, C, N)`.
        prior: Of each channel.
        correlated_bins: Bins that count as one observation.
        start: Where to begin, `(C, K)`; the prior's mean if not given.
        iterations: At most so many.

    Returns:
        Gains and offsets `(C, K)`, and their covariance by the curvature there, `(C, K, K)`.
    """
    classes = logits.shape[2]
    odds = (logits - logits[:, :, :1]).permute(1, 2, 0, 3).flatten(2).float()
    answers = counts.clamp(max=classes - 1).transpose(0, 1).flatten(1).long()
    answered = odds.gather(1, answers[:, None]).double().sum((1, 2))
    histogram = torch.stack([(answers == k).sum(1) for k in range(1, classes)], 1)
    happened = torch.cat([answered[:, None], histogram.double()], 1) / correlated_bins
    precision, mean = prior.covariance.double().inverse(), prior.mean.double()
    at = mean.expand(len(odds), -1).clone() if start is None else start.double()

    def cost(at: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log-posterior of each channel, and the probabilities behind it."""
        shifted = at[:, :1, None].float() * odds
        shifted[:, 1:] += at[:, 1:, None].float()
        norm = shifted.logsumexp(1, keepdim=True)
        away = at - mean
        total = norm.double().sum((1, 2)) / correlated_bins - (at * happened).sum(1)
        return total + 0.5 * ((away @ precision) * away).sum(1), (shifted - norm).exp()

    def curvature(probability: Tensor) -> tuple[Tensor, Tensor]:
        """Expected statistics of each channel, and their covariance plus the prior's precision."""
        expected = (probability * odds).sum(1)
        rest = probability[:, 1:]
        spread = (probability * (odds - expected[:, None]).square()).sum((1, 2))
        with_gain = (rest * (odds[:, 1:] - expected[:, None])).sum(-1)
        among = torch.diag_embed(rest.sum(-1)) - rest @ rest.transpose(1, 2)
        first = torch.cat([spread[:, None], with_gain], 1)[:, None]
        matrix = torch.cat([first, torch.cat([with_gain[..., None], among], 2)], 1)
        statistics = torch.cat([expected.sum(-1, keepdim=True), rest.sum(-1)], 1)
        return statistics.double() / correlated_bins, matrix.double() / correlated_bins + precision

    value, probability = cost(at)
    for _ in range(iterations):
        statistics, matrix = curvature(probability)
        slope = statistics - happened + (at - mean) @ precision
        step = torch.linalg.solve(matrix, slope)
        length = torch.ones(len(at), 1, dtype=at.dtype)
        for _ in range(8):
            value_there, probability = cost(at - length * step)
            worse = value_there > value + 1e-6 * value.abs()
            if not bool(worse.any()):
                break
            length = torch.where(worse[:, None], length / 2, length)
        at, value = at - length * step, value_there
        if (length * step).abs().max() < 1e-3:
            break
    _, matrix = curvature(probability)
    return at.to(logits), matrix.inverse().to(logits)


def learn_prior(gains: Sequence[Tensor], covariances: Sequence[Tensor]) -> Prior:
    """How channels of some animals differ from what a model says of them.

    Args:
        gains: Of each animal, `(C, K)`.
        covariances: How uncertain they are, `(C, K, K)`.
    """
    at, uncertain = torch.cat(list(gains)), torch.cat(list(covariances))
    mean = at.mean(0)
    away = at - mean
    return Prior(mean, (away.T @ away) / len(at) + uncertain.mean(0))


def adapted(prior: Prior, gains: Tensor, covariance: Tensor, weight: float = 20.0) -> Prior:
    """The prior of one brain, whose channels may differ more than those of the brains it came from.

    A model has learned the brains that it was trained on, so that little is left to differ there.

    Args:
        prior: Of all brains; its mean is kept, as what all channels have in common is for θ to say.
        gains: Of this brain, `(C, K)`.
        covariance: How uncertain they are, `(C, K, K)`.
        weight: Channels that the prior's covariance counts as (chosen here).
    """
    away = gains - prior.mean
    scatter = away.T @ away + covariance.sum(0)
    together = (weight * prior.covariance + scatter) / (weight + len(gains))
    return Prior(prior.mean, together)
