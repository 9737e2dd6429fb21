"""The last thing before the ear: a causal limiter that nothing can pass."""

import torch
from torch import Tensor

from icsim.sound import REFERENCE_PA, SAMPLE_RATE

RELEASE_DB_PER_S = 100.0
"""How fast attenuation goes back [dB/s] (chosen here)."""

BROKEN_DB = 80.0
"""A sample so far above the maximum [dB] is no sound but a fault, as one that is not finite."""

RETURN_S = 0.005
"""Time from silence to sound after a fault [s]."""

State = tuple[Tensor, Tensor]
"""Attenuation left [dB] and time since the last fault [samples], `(*,)` each."""


def limit(
    sound: Tensor, maximum_db_spl: float, before: State | None = None
) -> tuple[Tensor, State]:
    """Hold every sample at or below a maximum, whatever comes.

    Attenuation rises at once, as no look-ahead leaves it time, and falls by a constant number of
    decibels a second. Faults (NaN, infinite, far above any sound) are muted, and the sound comes
    back along a short ramp.

    Args:
        sound: Pressure [Pa], `(*, T)`.
        maximum_db_spl: The highest magnitude of a sample [dB SPL]. No RMS level exceeds it
            therefore, and that of a tone stays 3 dB below.
        before: State after the block before; None at the start.

    Returns:
        Pressure [Pa], `(*, T)`, and the state for the next block; blocks of any lengths give what
        one gives.

    >>> limit(torch.tensor([1e-3, 1e3, torch.nan]), 100.0)[0].abs().max().item() <= 2
    True
    """
    # A little less, so that rounding to the sound's own precision cannot exceed it.
    maximum = REFERENCE_PA * 10 ** (maximum_db_spl / 20) * (1 - torch.finfo(sound.dtype).eps)
    if before is None:
        start = sound.new_zeros(sound.shape[:-1], dtype=torch.double)
        before = start, start + RETURN_S * SAMPLE_RATE
    if sound.shape[-1] == 0:
        return sound, before
    attenuation_before, since_before = before
    # In double precision, so that hours of release are counted as exactly as milliseconds.
    time = torch.arange(1, sound.shape[-1] + 1, device=sound.device, dtype=torch.double)
    magnitude = sound.abs().double() / maximum
    faulty = ~(magnitude < 10 ** (BROKEN_DB / 20))
    fall = RELEASE_DB_PER_S / SAMPLE_RATE * time
    wanted = 20 * magnitude.masked_fill(faulty, 0).clamp(min=1).log10()
    highest = torch.maximum((wanted + fall).cummax(-1).values, attenuation_before.unsqueeze(-1))
    attenuation = (highest - fall).clamp(min=0)
    last = torch.where(faulty, time, -since_before.unsqueeze(-1)).cummax(-1).values
    since = (time - last).clamp(max=RETURN_S * SAMPLE_RATE)
    factor = since / (RETURN_S * SAMPLE_RATE) * 10 ** (-attenuation / 20)
    heard = (sound.masked_fill(faulty, 0) * factor).clamp(-maximum, maximum).to(sound)
    return heard, (attenuation[..., -1], since[..., -1])
