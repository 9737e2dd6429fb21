"""What the model of the midbrain is trained on."""

import torch
from torch import Tensor

from .models.readouts import Prediction


def cross_entropy(
    prediction: Prediction, counts: Tensor, weight: Tensor, observations: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of spike counts: their negative log-likelihood.

    Args:
        prediction: For B sounds, A animals and C channels.
        counts: Spikes in each bin, any integer type, `(B, A, C, N)`.
        weight: Of each sound, animal and channel, `(B, A, C)`: zero where an animal did not hear a
            sound, or where a channel is set apart.
        observations: Weights, summed over all bins, of the batch that these sounds are a part of:
            parts add up to its mean. Those of these sounds if not given.

    Returns:
        Nats a bin and channel, a scalar; zero if all weights are.
    """
    if observations is None:
        observations = weight.sum() * counts.shape[-1]
    return prediction.nats(counts, weight).sum() / observations.clamp(min=1)


def listener_divergence(deviation: Tensor) -> Tensor:
    """KL divergence from each animal's Gaussian to the prior of variance 1/A around its mean.

    It keeps the uncertainty of θ from vanishing: zero, and smallest, at a variance of `1 / A`.

    Args:
        deviation: Standard deviation of θ, `(A, P)`.

    Returns:
        Nats, summed over P and averaged over A.
    """
    ratio = len(deviation) * deviation.square()
    return 0.5 * (ratio - 1 - ratio.log()).sum(-1).mean()


def threshold_penalty(theta: Tensor, thresholds_db_spl: Tensor) -> Tensor:
    """Keep listeners at least as far apart in θ as their brainstem thresholds are.

    Args:
        theta: Means, `(A, P)`.
        thresholds_db_spl: ABR thresholds [dB SPL], `(A, F)`.

    Returns:
        `mean_{i<j} relu(d_abr − d_θ / sqrt(P / 6))`: `d_abr` the root mean square difference of
        thresholds in units of 100 dB, `d_θ` the mean absolute difference of θ.

    Raises:
        ValueError: With fewer than two animals.
    """
    animals, parameters = theta.shape
    if animals < 2:
        raise ValueError("the threshold penalty compares pairs of animals; there is only one")
    first, second = torch.triu_indices(animals, animals, 1, device=theta.device)
    abr = (thresholds_db_spl[first] - thresholds_db_spl[second]) / 100
    abr = abr.square().mean(-1).sqrt()
    between = (theta[first] - theta[second]).abs().mean(-1)
    return torch.relu(abr - between / (parameters / 6) ** 0.5).mean()
