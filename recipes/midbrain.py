"""The listener's midbrain and a normal one, as a learned model knows them."""

import functools

import torch
from torch import Tensor

from evaluation.neural import Midbrain
from icsim.conditional import BetaICNet
from icsim.counts import expected_counts
from icsim.sound import BIN_SAMPLES
from icsim.weights import fingerprint
from recipes.ears import learned
from recipes.fits import read_fit

CHUNK_BINS = 1024
"""So much of a response is in memory at a time [bins]."""


@functools.cache
def midbrains(model: str, theta: str) -> tuple[Midbrain, Midbrain]:
    """The listener's, and that of normal animals on average.

    Args:
        model: A BetaICNet.
        theta: Of `recipes.fit_theta` or `recipes.listen`.

    Raises:
        ValueError: If one is missing, or they do not belong together.
    """
    listener = read_fit(theta, fingerprint(model)).theta
    known, _ = learned(model)
    network = known.loss.model
    if len(listener) != network.config.parameters:
        raise ValueError(
            f"{theta}: {len(listener)} numbers, but {model} takes {network.config.parameters}"
        )
    return _midbrain(network, listener[None]), _midbrain(network, known.normal)


def _midbrain(model: BetaICNet, listeners: Tensor) -> Midbrain:
    return functools.partial(_mean_counts, model, listeners)


@torch.no_grad()
def _mean_counts(model: BetaICNet, listeners: Tensor, sound: Tensor) -> Tensor:
    """Expected counts, averaged over listeners `(n, P)`: `(B, T)` to `(B, C, N)`.

    Some bins and one listener at a time, so that memory is bounded.
    """
    pieces = []
    for start in range(0, sound.shape[-1] // BIN_SAMPLES, CHUNK_BINS):
        begin = max(start - model.receptive_bins, 0)
        latent = model.latent(sound[:, begin * BIN_SAMPLES : (start + CHUNK_BINS) * BIN_SAMPLES])
        counts = [expected_counts(model.decode(latent, one[None, None])[:, 0]) for one in listeners]
        pieces.append(torch.stack(counts).mean(0)[..., start - begin :])
    return torch.cat(pieces, -1)
