"""What an aid is trained on: terms by name, one number a sound, none hidden in another."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icsim.loss import ResponseLoss

INAUDIBLE_DB_SPL = 20.0
"""A band below it is not heard by normal ears either (chosen here)."""

STRONGEST_RATIO = 3.0
"""Compression that leaves contrast enough (chosen here; clinics seldom go beyond 3:1)."""


class Task(NamedTuple):
    """What midbrains should answer to sounds, and how far they are from it without an aid."""

    listener: Tensor
    """θ of whom the aid is for, `(B, P)` or `(1, P)`."""
    wanted: Tensor
    """Log-probabilities of counts, `(B, C, K, N)`."""
    unaided: Tensor
    """Discrepancy of the answers to the sounds as they are, `(B,)`."""
    skip_bins: int
    """Bins at the start that are context and not compared."""


@torch.no_grad()
def compensation(
    loss: ResponseLoss, sound: Tensor, listener: Tensor, normal: Tensor, skip_bins: int
) -> Task:
    """The impaired midbrain hearing the aid should answer as the normal one hearing the sound.

    Args:
        loss: The frozen model.
        sound: The sound, noise included [Pa], `(B, T)`.
        listener: θ of each impaired listener, `(B, P)`.
        normal: θ of normal hearing, `(B, P)` or `(1, P)`.
        skip_bins: Bins at the start that are context.
    """
    wanted = loss.respond(sound, normal)
    return Task(listener, wanted, loss(sound, listener, wanted, skip_bins), skip_bins)


@torch.no_grad()
def denoising(
    loss: ResponseLoss,
    noisy: Tensor,
    clean: Tensor,
    normal: Tensor,
    skip_bins: int,
    response: Tensor | None = None,
) -> Task:
    """The normal midbrain hearing the denoised sound should answer as to the clean one.

    Args:
        loss: The frozen model.
        noisy: With noise [Pa], `(B, T)`.
        clean: Without [Pa], `(B, T)`.
        normal: θ of normal hearing, `(B, P)`.
        skip_bins: Bins at the start that are context.
        response: What the normal midbrain answers to the noisy sound, if that was computed.
    """
    if len(noisy) == 0:
        return Task(normal, noisy, noisy.sum(1), skip_bins)
    response = loss.respond(noisy, normal) if response is None else response
    wanted = loss.respond(clean, normal)
    return Task(normal, wanted, loss.between(response, wanted, skip_bins), skip_bins)


def discrepancy_left(
    loss: ResponseLoss, processed: Tensor, task: Task, usual: Tensor | None = None
) -> Tensor:
    """How far midbrains are from their task, relative to doing nothing, so that each counts.

    A tenth of what is usual is added below: where nothing is lost, nothing is to be gained.

    Args:
        loss: The frozen model.
        processed: What the aid makes of the sounds [Pa], `(B, T)`.
        task: Of `compensation` or `denoising`.
        usual: Mean of `task.unaided` over the batch that these sounds are a part of; over
            themselves if not given.

    Returns:
        `(B,)`: near 1 for an aid that does nothing (1 / 1.1 for what loses as much as usual), 0
        for one that restores everything.
    """
    if len(processed) == 0:
        return processed.sum(1)
    usual = task.unaided.mean() if usual is None else usual
    aided = loss(processed, task.listener, task.wanted, task.skip_bins)
    return aided / (task.unaided + 0.1 * usual + 1e-6)


def distortion(denoised: Tensor, noisy: Tensor, clean: Tensor) -> Tensor:
    """Energy of what is not the clean sound, relative to that of the noise.

    A midbrain forgives a voice that is thinned out together with its noise; ears do not.

    Args:
        denoised: `noisy` after noise reduction [Pa], `(B, T)`.
        noisy: With noise [Pa], `(B, T)`.
        clean: Without [Pa], `(B, T)`.

    Returns:
        `(B,)`: 1 for no noise reduction, 0 for all noise gone and nothing else.
    """
    return (denoised - clean).square().sum(1) / (noisy - clean).square().sum(1)


def roughness(gains_db: Tensor) -> Tensor:
    """Mean squared second difference of a gain over bands [(10 dB)²].

    A gain that jumps between neighbouring bands colours sound and rings in time.

    Args:
        gains_db: What an aid adds in each band [dB], `(B, bands, L)`, here and below.

    Returns:
        `(B,)`, here and below.
    """
    return (gains_db / 10).diff(n=2, dim=1).square().mean((1, 2))


def flutter(gains_db: Tensor) -> Tensor:
    """Mean squared change of a gain from hop to hop [(10 dB)²].

    A gain that follows single periods of a voice modulates it and makes tones that were not there.
    """
    return (gains_db / 10).diff(dim=2).square().mean((1, 2))


def effort(gains_db: Tensor) -> Tensor:
    """Mean squared gain [(10 dB)²]: what no channel hears is not worth amplifying."""
    return (gains_db / 10).square().mean((1, 2))


def hiss(gains_db: Tensor, levels_db: Tensor) -> Tensor:
    """Mean squared amplification of what lies below 20 dB SPL [(10 dB)²].

    In pauses the noise of a room and of a microphone must not be lifted into hearing.

    Args:
        gains_db: `(B, bands, L)` [dB].
        levels_db: Of what comes in, in each band [dB SPL], `(B, bands, L)`.
    """
    inaudible = torch.sigmoid((INAUDIBLE_DB_SPL - levels_db) / 2)
    return (inaudible * (gains_db / 10).relu().square()).mean((1, 2))


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
    return ((1 / STRONGEST_RATIO - 1 - slope).relu() + slope.relu()).square().mean(1)


class TaskWeights(nn.Module):
    """Weights of tasks by their learned uncertainty: `Σ exp(−s_k) · L_k + s_k`.

    Source: Kendall, Gal & Cipolla 2018.
    """

    def __init__(self, tasks: int):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(tasks))

    def forward(self, losses: Tensor, share: float = 1.0) -> Tensor:
        """`(K,)` to a scalar, of a batch or of a `share` of one."""
        return (torch.exp(-self.log_variance) * losses + share * self.log_variance).sum()


def guards(levels: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """The terms that guard gains `(B, bands, L)` [dB], by name, each `(B,)`.

    Args:
        levels: Of what the aid hears [dB SPL], `(B, bands, L)`.
    """
    return {
        "roughness": roughness,
        "flutter": flutter,
        "effort": effort,
        "hiss": lambda gains: hiss(gains, levels),
        "contrast": lambda gains: contrast(gains, levels),
    }
