"""Counts as classes: a softmax over 0, 1, 2, … and the largest count or more, a channel."""

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from icsim.likelihood import negative_log_likelihood

CHUNK = {"cpu": 2**20, "cuda": 2**26}
"""Logits that are written out at a time: few enough for a processor's cache, and enough for a
graphics processor to be busy with (chosen here)."""


@dataclasses.dataclass(frozen=True)
class CategoricalConfig:
    """How many classes of counts there are. Source of the default: arXiv 2506.03088."""

    kind: Literal["categorical"] = "categorical"
    classes: int = 5
    """0, 1, … and `classes` − 1 or more spikes in a bin."""

    def __post_init__(self):
        if self.classes < 2:
            raise ValueError(f"a bin is silent or not: classes must be 2 or more: {self}")


class CategoricalPrediction(NamedTuple):
    """Distributions of counts before they are written out: a likelihood may need no logits."""

    features: Tensor
    """What the readout reads, `(B, A, Z, N)`."""
    weight: Tensor
    """The readout's rows for each animal's channels, `(A or 1, C · K, Z)`."""
    bias: Tensor
    """`(A or 1, C · K)`."""
    classes: int = 5
    """K."""

    def logits(self) -> Tensor:
        """All logits, `(B, A, C, K, N)`."""
        logits = self.weight @ self.features + self.bias.unsqueeze(-1)
        return logits.unflatten(2, (-1, self.classes))

    def log_probabilities(self) -> Tensor:
        """Log-probabilities of counts, `(B, A, C, K, N)`, at least in float32."""
        logits = self.logits()
        return logits.log_softmax(-2, dtype=torch.promote_types(logits.dtype, torch.float32))

    def nats(self, counts: Tensor, weight: Tensor) -> Tensor:
        """Negative log-likelihood of each animal's counts.

        Logits are never all in memory: a chunk of them is computed, compared and turned into
        gradients before the next one, in the precision of the features and with sums in float32.

        Args:
            counts: Spikes in each bin, any integer type, `(B, A, C, N)`.
            weight: Of each sound, animal and channel, `(B, A, C)`.

        Returns:
            Summed over sounds, channels and bins [nats], `(A,)`.
        """
        animals = counts.shape[1]
        features = self.features.expand(-1, animals, -1, -1)
        rows = self.weight.expand(animals, -1, -1)
        bias = self.bias.expand(animals, -1)
        return _ChunkedLikelihood.apply(features, rows, bias, counts, weight)


class Categorical(nn.Module):
    """Pointwise convolution from features to logits of counts, channel by channel.

    Args:
        config: Its classes.
        features: Channels of what it reads, Z.
        slots: Channels that it has rows for.
    """

    def __init__(self, config: CategoricalConfig, features: int, slots: int):
        super().__init__()
        self.classes, self.slots = config.classes, slots
        self.weight = nn.Parameter(torch.empty(slots * self.classes, features))
        self.bias = nn.Parameter(torch.zeros(slots * self.classes))
        nn.init.xavier_uniform_(self.weight)

    @torch.no_grad()
    def start_at(self, histogram: Tensor) -> None:
        """Begin from each channel's own histogram of counts, not from chance.

        Args:
            histogram: How often it gives 0, 1, … spikes, `(slots, at least K)`; what lies beyond
                the last class belongs to it.
        """
        if histogram.ndim != 2 or len(histogram) != self.slots or histogram.shape[1] < self.classes:
            raise ValueError(
                f"histogram must be ({self.slots}, {self.classes} or more), "
                f"got {tuple(histogram.shape)}"
            )
        last = histogram[:, self.classes - 1 :].sum(1, keepdim=True)
        frequency = torch.cat([histogram[:, : self.classes - 1], last], 1)
        self.bias.copy_(frequency.clamp(min=1e-4).log().flatten())

    def forward(self, features: Tensor, matching: Tensor | None = None) -> CategoricalPrediction:
        """Predict the channels of each animal.

        Args:
            features: `(B, A, Z, N)`.
            matching: Slot of each channel of each animal, `(A or 1, C)`; negative numbers give any
                channel. All slots in their order if None.
        """
        if matching is None:
            return CategoricalPrediction(features, self.weight[None], self.bias[None], self.classes)
        slots = matching.clamp(min=0)
        weight = self.weight.unflatten(0, (self.slots, self.classes))[slots]
        bias = self.bias.unflatten(0, (self.slots, self.classes))[slots]
        return CategoricalPrediction(
            features, weight.flatten(1, 2), bias.flatten(1, 2), self.classes
        )


class _ChunkedLikelihood(torch.autograd.Function):
    """Readout, softmax and likelihood in one; gradients are made on the way forward."""

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
