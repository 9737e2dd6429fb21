"""The listeners that a response model has learned: where they lie in θ, and who hears normally."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from .load import load_theta_model
from .response import ResponseModel


@dataclasses.dataclass(frozen=True)
class ListenerSpace:
    """A response model with condition `theta`, and its A listeners."""

    model: ResponseModel
    names: tuple[str, ...]
    """Of the animals, A of them."""
    theta: Tensor
    """Means, `(A, P)`."""
    deviation: Tensor
    """Standard deviations, `(A, P)`."""
    normal: Tensor
    """Means of those with normal hearing, `(n, P)`: what a hearing loss is measured from."""


def listener_space(path: str | Path) -> ListenerSpace:
    """Read a model and its listeners.

    Raises:
        ValueError: If it has no θ, or no animal with normal hearing.
    """
    model, facts = load_theta_model(path)
    theta, deviation = model.listeners.at().detach(), model.listeners.deviation.detach()
    healthy = torch.tensor([name in facts.normal for name in facts.animals])
    if not bool(healthy.any()):
        raise ValueError(f"{path}: knows no animal with normal hearing to restore others to")
    return ListenerSpace(model, facts.animals, theta, deviation, theta[healthy])
