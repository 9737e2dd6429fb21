"""What the model of the midbrain is trained on."""

import torch
from torch import Tensor

LARGEST_COUNT = 4
"""Counts above it fall into its class. Source: arXiv 2506.03088."""


def cross_entropy(logits: Tensor, counts: Tensor, heard: Tensor) -> Tensor:
    """Mean cross-entropy of spike counts.

    Args:
        logits: `(B, A, C, K, N)`.
        counts: Spikes in each bin, any integer type, `(B, A, C, N)`.
        heard: Which animal heard which sound, bool `(B, A)`; the rest does not count.

    Returns:
        Nats a bin and channel, a scalar; zero if nobody heard anything.
    """
    target = counts.long().clamp(max=LARGEST_COUNT).unsqueeze(-2)
    logits = logits.float()
    nats = logits.logsumexp(-2) - logits.gather(-2, target).squeeze(-2)
    weight = heard.to(nats)
    return (nats.mean((-2, -1)) * weight).sum() / weight.sum().clamp(min=1)


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
