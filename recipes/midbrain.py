"""The listener's midbrain and a normal one, as a learned model knows them."""

import functools

import torch
from torch import Tensor

from evaluation.neural import Midbrain
from icsim.metrics import expected_counts
from icsim.models.response import ResponseModel
from icsim.weights import fingerprint
from recipes.ears import learned
from recipes.fits import read_fit

CHUNK_BINS = 1024
"""So much of a response is in memory at a time [bins]."""


@functools.cache
def midbrains(model: str, theta: str) -> tuple[Midbrain, Midbrain]:
    """The listener's, and that of normal animals on average.

    Args:
        model: Conditioned on θ.
        theta: Of `recipes.fit_theta` or `recipes.listen`.

    Raises:
        ValueError: If one is missing, or they do not belong together.
    """
    listener = read_fit(theta, fingerprint(model)).theta
    ears, _ = learned(model)
    wanted = ears.normal.shape[1]
    if len(listener) != wanted:
        raise ValueError(f"{theta}: {len(listener)} numbers, but {model} takes {wanted}")
    return _midbrain(ears.loss.model, listener[None]), _midbrain(ears.loss.model, ears.normal)


def mean_response(model: ResponseModel, listeners: Tensor) -> Midbrain:
    """Expected counts of a model, averaged over listeners `(n, P)`; differentiable."""
    return lambda sound: expected_counts(
        model.decode(model.latent(sound), listeners.unsqueeze(0))
    ).mean(1)


def _midbrain(model: ResponseModel, listeners: Tensor) -> Midbrain:
    return functools.partial(_mean_counts, model, listeners)


@torch.no_grad()
def _mean_counts(model: ResponseModel, listeners: Tensor, sound: Tensor) -> Tensor:
    """Expected counts, averaged over listeners `(n, P)`: `(B, T)` to `(B, C, N)`."""
    pieces = model.decode_in_chunks(sound, listeners[None], CHUNK_BINS)
    return torch.cat([expected_counts(piece).mean(1) for piece in pieces], -1)
