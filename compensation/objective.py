"""What an aid is trained on: terms by name, each a scalar, none hidden in another.

Terms of which not every sound of a batch has its share take `mean`, by which several processes
average over all of theirs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from icsim.loss import ResponseLoss

INAUDIBLE_DB_SPL = 20.0
"""A band below it is not heard by normal ears either (chosen here)."""

STRONGEST_RATIO = 3.0
"""Compression that leaves contrast enough (chosen here; clinics seldom go beyond 3:1)."""


Mean = Callable[[Tensor], Tensor]
"""Of one number a sound, `(n,)`, over the whole batch; 0 if nobody has any."""


def batch_mean(values: Tensor) -> Tensor:
    """`Mean` where the batch is in one process."""
    return values.sum() / max(1, len(values))


def relative(discrepancy: Tensor, unaided: Tensor, mean: Mean = batch_mean) -> Tensor:
    """Mean of discrepancies relative to doing nothing, so that every listener counts.

    A tenth of the batch's mean is added below: where nothing is lost, nothing is to be gained.

    Args:
        discrepancy: With the aid, `(B,)`.
        unaided: Without, `(B,)`; no gradient.
        mean: Over the batch.
    """
    return mean(discrepancy / (unaided + 0.1 * mean(unaided) + 1e-6))


def compensation(
    loss: ResponseLoss,
    compensated: Tensor,
    sound: Tensor,
    listener: Tensor,
    normal: Tensor,
    skip_bins: int,
    target: Tensor | None = None,
    mean: Mean = batch_mean,
) -> Tensor:
    """How far the impaired midbrain hearing the aid is from the normal one hearing the sound.

    Args:
        loss: The frozen model.
        compensated: What the aid makes of the sound [Pa], `(B, T)`.
        sound: The sound, noise included [Pa], `(B, T)`.
        listener: θ of each impaired listener, `(B, P)`.
        normal: θ of normal hearing, `(B, P)` or `(1, P)`.
        skip_bins: Bins at the start that are context.
        target: What the normal midbrain answers to the sound, if that is known already.
        mean: Over the batch.

    Returns:
        Near 1 for an aid that does nothing (1 / 1.1 if all lose alike, less otherwise), 0 for one
        that restores everything.
    """
    with torch.no_grad():
        target = loss.respond(sound, normal) if target is None else target
        unaided = loss(sound, listener, target, skip_bins)
    return relative(loss(compensated, listener, target, skip_bins), unaided, mean)


def denoising(
    loss: ResponseLoss,
    denoised: Tensor,
    noisy: Tensor,
    clean: Tensor,
    normal: Tensor,
    skip_bins: int,
    heard: Tensor | None = None,
    mean: Mean = batch_mean,
) -> Tensor:
    """How far the normal midbrain hearing the denoised sound is from hearing the clean one.

    Args:
        loss: The frozen model.
        denoised: `noisy` after noise reduction [Pa], `(B, T)`.
        noisy: With noise [Pa], `(B, T)`.
        clean: Without [Pa], `(B, T)`.
        normal: θ of normal hearing, `(B, P)` or `(1, P)`.
        skip_bins: Bins at the start that are context.
        heard: What the normal midbrain answers to the noisy sound, if that is known already.
        mean: Over the batch.

    Returns:
        Near 1 for no noise reduction, as in `compensation`, 0 for all noise gone; zero for an
        empty batch.
    """
    if len(noisy) == 0:
        nothing = denoised.sum(1)
        return relative(nothing, nothing.detach(), mean)
    with torch.no_grad():
        target = loss.respond(clean, normal)
        heard = loss.respond(noisy, normal) if heard is None else heard
        unprocessed = loss.between(heard, target, skip_bins)
    return relative(loss(denoised, normal, target, skip_bins), unprocessed, mean)


def distortion(denoised: Tensor, noisy: Tensor, clean: Tensor, mean: Mean = batch_mean) -> Tensor:
    """Mean energy of what is not the clean sound, relative to that of the noise.

    A midbrain forgives a voice that is thinned out together with its noise; ears do not.

    Args:
        denoised: `noisy` after noise reduction [Pa], `(B, T)`.
        noisy: With noise [Pa], `(B, T)`.
        clean: Without [Pa], `(B, T)`.
        mean: Over the batch.

    Returns:
        1 for no noise reduction, 0 for all noise gone and nothing else; zero for an empty batch.
    """
    return mean((denoised - clean).square().sum(1) / (noisy - clean).square().sum(1))


def roughness(gains_db: Tensor) -> Tensor:
    """Mean squared second difference of a gain over bands [(10 dB)²].

    A gain that jumps between neighbouring bands colours sound and rings in time.

    Args:
        gains_db: What an aid adds in each band [dB], `(B, bands, L)`, here and below.
    """
    return (gains_db / 10).diff(n=2, dim=1).square().mean()


def flutter(gains_db: Tensor) -> Tensor:
    """Mean squared change of a gain from hop to hop [(10 dB)²].

    A gain that follows single periods of a voice modulates it and makes tones that were not there.
    """
    return (gains_db / 10).diff(dim=2).square().mean()


def effort(gains_db: Tensor) -> Tensor:
    """Mean squared gain [(10 dB)²]: what no channel hears is not worth amplifying."""
    return (gains_db / 10).square().mean()


def hiss(gains_db: Tensor, levels_db: Tensor) -> Tensor:
    """Mean squared amplification of what lies below 20 dB SPL [(10 dB)²].

    In pauses the noise of a room and of a microphone must not be lifted into hearing.

    Args:
        gains_db: `(B, bands, L)` [dB].
        levels_db: Of what comes in, in each band [dB SPL], `(B, bands, L)`.
    """
    inaudible = torch.sigmoid((INAUDIBLE_DB_SPL - levels_db) / 2)
    return (inaudible * (gains_db / 10).relu().square()).mean()


def contrast(gains_db: Tensor, levels_db: Tensor) -> Tensor:
    """Mean squared slope of gain against level beyond a compression of 3:1, or above none.

    Stronger compression makes soft and loud alike, and a gain that grows with level makes loud
    sounds louder still.

    Args:
        gains_db: `(B, bands, L)` [dB].
        levels_db: Of what comes in, in each band [dB SPL], `(B, bands, L)`.
    """
    level = levels_db - levels_db.mean(-1, keepdim=True)
    slope = (level * gains_db).mean(-1) / (level.square().mean(-1) + 1)
    return ((1 / STRONGEST_RATIO - 1 - slope).relu() + slope.relu()).square().mean()


class TaskWeights(nn.Module):
    """Weights of tasks by their learned uncertainty: `Σ exp(−s_k) · L_k + s_k`.

    Source: Kendall, Gal & Cipolla 2018.
    """

    def __init__(self, tasks: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """`(K,)` to a scalar."""
        return (torch.exp(-self.log_variance) * losses + self.log_variance).sum()
