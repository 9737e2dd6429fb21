"""What the model of the midbrain is trained on."""

import torch
from torch import Tensor

from .counts import Prediction
from .likelihood import negative_log_likelihood

CHUNK = {"cpu": 2**20, "cuda": 2**26}
"""Logits that are written out at a time: few enough for a processor's cache, and enough for a
graphics processor to be busy with (chosen here)."""


def cross_entropy(
    prediction: Prediction, counts: Tensor, weight: Tensor, observations: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy of spike counts.

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
    return nats(prediction, counts, weight).sum() / observations.clamp(min=1)


def nats(prediction: Prediction, counts: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of each animal, summed over sounds, channels and bins; as `cross_entropy`.

    Logits are never all in memory: a chunk of them is decoded, compared and turned into gradients
    before the next one, in the precision of the features and with sums in float32.

    Returns:
        `(A,)`.
    """
    animals = counts.shape[1]
    features = prediction.features.expand(-1, animals, -1, -1)
    rows = prediction.weight.expand(animals, -1, -1)
    bias = prediction.bias.expand(animals, -1)
    return _DecodedCrossEntropy.apply(features, rows, bias, counts, weight)


class _DecodedCrossEntropy(torch.autograd.Function):
    """Decoder, softmax and cross-entropy in one; gradients are made on the way forward."""

    @staticmethod
    def forward(ctx, features, rows, bias, counts, weight):
        wanted = any(ctx.needs_input_grad[:3])
        grads = [torch.zeros_like(t) for t in (features, rows, bias)] if wanted else None
        total = features.new_zeros(counts.shape[1], dtype=torch.float32)
        bins = counts.shape[-1]
        step = max(1, CHUNK.get(features.device.type, CHUNK["cuda"]) // (rows.shape[1] * bins))
        space = features.new_empty(min(step, len(features)), rows.shape[1], bins)
        for animal in range(counts.shape[1]):
            kernel = rows[animal].to(features.dtype)
            for start in range(0, len(features), step):
                part = slice(start, start + step)
                x, answers = features[part, animal], (counts[part, animal], weight[part, animal])
                logits = torch.matmul(kernel, x, out=space[: len(x)]).float()
                total[animal] += negative_log_likelihood(logits, bias[animal], *answers, wanted)
                if wanted:
                    grads[2][animal] += logits.sum((0, 2))
                    slope = logits.to(features.dtype)
                    grads[0][part, animal] = kernel.T @ slope
                    grads[1][animal] += (slope @ x.transpose(1, 2)).sum(0)
        if wanted:
            ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        features, rows, bias = ctx.saved_tensors
        by_animal = upstream.to(features.dtype)
        return (
            features * by_animal[None, :, None, None],
            rows * upstream[:, None, None],
            bias * upstream[:, None],
            None,
            None,
        )


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
