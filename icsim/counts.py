"""Classes of spike counts, and distributions over them."""

from typing import NamedTuple

import torch
from torch import Tensor

CLASSES = 5
"""Count classes: 0, 1, 2, 3 and at least 4 spikes a bin. Source: arXiv 2506.03088."""

LARGEST_COUNT = CLASSES - 1
"""Counts above it fall into its class."""


class Prediction(NamedTuple):
    """Distributions of counts before they are written out: what comes next may need no logits."""

    features: Tensor
    """What the decoder reads, `(B, A, Z, N)`."""
    weight: Tensor
    """The decoder's rows for each animal's channels, `(A or 1, C · K, Z)`."""
    bias: Tensor
    """`(A or 1, C · K)`."""

    def logits(self) -> Tensor:
        """All logits, `(B, A, C, K, N)`."""
        logits = self.weight @ self.features + self.bias.unsqueeze(-1)
        return logits.unflatten(2, (-1, CLASSES))

    def log_probabilities(self) -> Tensor:
        """Log-probabilities of counts, `(B, A, C, K, N)`, at least in float32."""
        logits = self.logits()
        return logits.log_softmax(-2, dtype=torch.promote_types(logits.dtype, torch.float32))


def expected_counts(log_probability: Tensor) -> Tensor:
    """Mean count, the last class taken as 4: `(*, K, N)` to `(*, N)`."""
    counts = torch.arange(log_probability.shape[-2], device=log_probability.device)
    return (log_probability.exp() * counts.unsqueeze(-1)).sum(-2)
