"""The listener's midbrain and a normal one, as a learned response model has them."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from evaluation.neural import Midbrain
from icsim.fits import read_fit
from icsim.metrics import expected_counts
from icsim.models.listener_space import listener_space
from icsim.models.response import ResponseModel
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
