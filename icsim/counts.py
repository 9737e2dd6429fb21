"""Distributions over spike counts."""

import torch
from torch import Tensor

from .models.readouts import CategoricalPrediction as Prediction

__all__ = ["CLASSES", "LARGEST_COUNT", "Prediction", "expected_counts"]

CLASSES = 5
"""Count classes of ICNet, BetaICNet and ABRNet: 0, 1, 2, 3 and at least 4 spikes a bin. Source:
arXiv 2506.03088."""

LARGEST_COUNT = CLASSES - 1
"""Counts above it fall into its class."""


def expected_counts(log_probability: Tensor) -> Tensor:
    """Mean count, the last of K classes taken as K − 1: `(*, K, N)` to `(*, N)`."""
    counts = torch.arange(log_probability.shape[-2], device=log_probability.device)
    return (log_probability.exp() * counts.unsqueeze(-1)).sum(-2)
