"""The listener's midbrain and a normal one, as a learned response model has them."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from evaluation.neural import Midbrain, discrepancy
from icsim.fits import read_fit
from icsim.metrics import expected_counts
from icsim.models.listener_space import listener_space
from icsim.models.response import ResponseModel
from icsim.simulation.animal import Animal
from icsim.simulation.cochlea import filter_sound
from icsim.weights import fingerprint

CHUNK_BINS = 1024
"""So much of a response is in memory at a time [bins]."""


@functools.cache
def model_midbrains(model: str | Path, theta: str | Path) -> tuple[Midbrain, Midbrain]:
    """Expected counts of a listener, and of the model's normal animals on average; no gradients.

    Args:
        model: A checkpoint with condition `theta`.
        theta: Of `recipes.fit_theta` or `recipes.listen`.

    Raises:
        ValueError: If one is missing, or they do not belong together.
    """
    listener = read_fit(theta, fingerprint(model)).theta
    space = listener_space(model)
    wanted = space.normal.shape[1]
    if len(listener) != wanted:
        raise ValueError(f"{theta}: {len(listener)} numbers, but {model} takes {wanted}")
    return (
        functools.partial(_mean_counts, space.model, listener[None]),
        functools.partial(_mean_counts, space.model, space.normal),
    )


def mean_response(model: ResponseModel, listeners: Tensor) -> Midbrain:
    """Expected counts of a model, averaged over listeners `(n, P)`; differentiable."""
    return lambda sound: expected_counts(
        model.decode(model.latent(sound), listeners.unsqueeze(0))
    ).mean(1)


@torch.no_grad()
def _mean_counts(model: ResponseModel, listeners: Tensor, sound: Tensor) -> Tensor:
    """The same in pieces that fit into memory, `(B, T)` to `(B, C, N)`."""
    pieces = model.decode_in_chunks(sound, listeners[None], CHUNK_BINS)
    return torch.cat([expected_counts(piece).mean(1) for piece in pieces], -1)


@torch.no_grad()
def restorations(
    process: Callable[[Tensor, Tensor], Tensor],
    animals: Sequence[Animal],
    sound: Tensor,
    points: Tensor,
) -> list[list[float]]:
    """Of sounds `(B, T)` by an aid with each θ `(n, P)`: a row an animal, a number a θ.

    Args:
        process: What the aid makes of sounds for listeners `(B, P)`.
        animals: Simulated ones.
        sound: Pressure [Pa].
        points: θ.
    """
    filtered = filter_sound(sound)
    targets = [animal.healthy().expected_counts(filtered) for animal in animals]
    unaided = [
        discrepancy(animal.expected_counts(filtered), target).sum()
        for animal, target in zip(animals, targets, strict=True)
    ]
    rows: list[list[float]] = [[] for _ in animals]
    for theta in points:
        # The ear's filters are the same for all animals, and most of the work.
        aided = filter_sound(process(sound, theta.expand(len(sound), -1)))
        for row, animal, target, before in zip(rows, animals, targets, unaided, strict=True):
            after = discrepancy(animal.expected_counts(aided), target).sum()
            row.append(1 - (after / before).item())
    return rows
