"""Directions of θ that can be named: along which a loss, its slope, or lost synapses change.

A network learns the axes of θ for itself, and any rotation of them would do. What is measured of
the animals that it was trained on, or is true of simulated ones, names directions: each quantity is
read from the logits of θ by a linear regression, and moved by a step that leaves the other named
quantities as they are.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from icsim.decoding import linear_r2, linear_reading

READABLE = 0.5
"""R² of animals that were left out from which on a quantity names a direction (chosen here)."""


@dataclasses.dataclass(frozen=True)
class NamedAxes:
    """Q named directions; made by `named_axes`."""

    names: tuple[str, ...]
    """Of the quantities, with their units."""
    centre: Tensor
    """Mean logits of the animals, `(P,)`."""
    mean: Tensor
    """Of each quantity over the animals, `(Q,)`."""
    readings: Tensor
    """Of each quantity by logit, `(Q, P)`."""
    steps: Tensor
    """Logits by which one quantity grows by one and the others not, `(P, Q)`."""
    ranges: Tensor
    """Least and most of each quantity among the animals, `(Q, 2)`."""
    r2: dict[str, float]
    """Of every quantity that was asked for, each animal left out in turn."""

    def read(self, theta: Tensor) -> Tensor:
        """The quantities of listeners, `(n, P)` to `(n, Q)`."""
        return self.mean + (theta.logit(eps=1e-4) - self.centre) @ self.readings.T

    def moved(self, theta: Tensor, name: str, value: float) -> Tensor:
        """The listener `(P,)` in whom one quantity has a value, and the other named ones stay.

        Raises:
            ValueError: If no direction has that name.
        """
        if name not in self.names:
            raise ValueError(f"{name}: names no direction of θ; those: {', '.join(self.names)}")
        place = self.names.index(name)
        more = value - self.read(theta[None])[0, place]
        return (theta.logit(eps=1e-4) + more * self.steps[:, place]).sigmoid()


def named_axes(theta: Tensor, quantities: Mapping[str, Tensor]) -> NamedAxes:
    """Directions of those quantities that can be read from θ.

    Args:
        theta: Of the animals, `(A, P)`.
        quantities: By name, `(A,)` each.

    Raises:
        ValueError: If none can be read.
    """
    logits = theta.logit(eps=1e-4)
    r2 = {
        name: linear_r2(logits.numpy(), values.numpy()) or 0.0
        for name, values in quantities.items()
    }
    names = tuple(name for name, value in r2.items() if value >= READABLE)
    if not names:
        measured = ", ".join(f"{name} {value:.2f}" for name, value in r2.items())
        raise ValueError(f"nothing can be read from θ of {len(theta)} animals; R²: {measured}")
    values = torch.stack([quantities[name] for name in names]).float()
    readings = np.stack([linear_reading(logits.numpy(), row.numpy()) for row in values])
    rows = torch.from_numpy(readings).float()
    centre = logits.mean(0)
    away = logits - centre
    # Listeners move as animals differ: in other directions no network has learned what happens.
    along = (away.T @ away / len(away) + 1e-3 * torch.eye(len(centre))) @ rows.T
    steps = along @ torch.linalg.pinv(rows @ along)
    ranges = torch.stack([values.min(1).values, values.max(1).values], 1)
    return NamedAxes(names, centre, values.mean(1), rows, steps, ranges, r2)
