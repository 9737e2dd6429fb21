"""Counts of a Poisson process, whose logarithmic rate is read from the features."""

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

HIGHEST_LOG_RATE = 7.0
"""Bound of the logarithmic rate: a thousand spikes in a bin are none that a cell fires."""


@dataclasses.dataclass(frozen=True)
class PoissonConfig:
    """Which counts are told apart where a distribution is written out."""

    kind: Literal["poisson"] = "poisson"
    classes: int = 10
    """0, 1, … and `classes` − 1 or more spikes in a bin; the likelihood knows no largest count."""

    def __post_init__(self):
        if self.classes < 2:
            raise ValueError(f"a bin is silent or not: classes must be 2 or more: {self}")


class PoissonPrediction(NamedTuple):
    """Rates of counts."""

    log_rate: Tensor
    """Natural logarithm of the mean count of a bin, `(B, A, C, N)`."""
    classes: int
    """K."""

    def log_probabilities(self) -> Tensor:
        """Log-probabilities of 0, 1, … and K − 1 or more spikes, `(B, A, C, K, N)`."""
        log_rate = self.log_rate.unsqueeze(-2)
        counts = torch.arange(self.classes - 1, device=log_rate.device).unsqueeze(-1).to(log_rate)
        few = counts * log_rate - log_rate.exp() - torch.lgamma(counts + 1)
        smallest = torch.finfo(few.dtype).eps
        rest = (1 - few.exp().sum(-2, keepdim=True)).clamp(min=smallest).log()
        return torch.cat([few, rest], -2)

    def nats(self, counts: Tensor, weight: Tensor) -> Tensor:
        """Negative log-likelihood of each animal's counts.

        Args:
            counts: Spikes in each bin, any integer type, `(B, A, C, N)`.
            weight: Of each sound, animal and channel, `(B, A, C)`.

        Returns:
            Summed over sounds, channels and bins [nats], `(A,)`.
        """
        log_rate, counts = self.log_rate.float(), counts.float()
        each = log_rate.exp() - counts * log_rate + torch.lgamma(counts + 1)
        return (each.sum(-1) * weight).sum((0, 2))


class Poisson(nn.Module):
    """Pointwise convolution from features to a logarithmic rate, channel by channel.

    Args:
        config: Its classes.
        features: Channels of what it reads, Z.
        slots: Channels that it has rows for.
    """

    def __init__(self, config: PoissonConfig, features: int, slots: int):
        super().__init__()
        self.classes, self.slots = config.classes, slots
        self.weight = nn.Parameter(torch.empty(slots, features))
        self.bias = nn.Parameter(torch.zeros(slots))
        nn.init.xavier_uniform_(self.weight)

    @torch.no_grad()
    def start_at(self, histogram: Tensor) -> None:
        """Begin from each channel's own mean count.

        Args:
            histogram: How often it gives 0, 1, … spikes, `(slots, any)`.
        """
        if histogram.ndim != 2 or len(histogram) != self.slots:
            raise ValueError(
                f"histogram must be ({self.slots}, counts), got {tuple(histogram.shape)}"
            )
        counts = torch.arange(histogram.shape[1], device=histogram.device).to(histogram)
        self.bias.copy_((histogram @ counts).clamp(min=1e-4).log())

    def forward(self, features: Tensor, matching: Tensor | None = None) -> PoissonPrediction:
        """Predict the channels of each animal; arguments as `Categorical.forward`."""
        slots = torch.arange(self.slots)[None] if matching is None else matching.clamp(min=0)
        log_rate = self.weight[slots] @ features + self.bias[slots].unsqueeze(-1)
        return PoissonPrediction(log_rate.clamp(max=HIGHEST_LOG_RATE), self.classes)
