"""The last thing before the ear: a causal limiter that nothing can pass."""

import math

import numpy as np
import torch
from torch import Tensor

from icsim.compiling import compiled
from icsim.sound import REFERENCE_PA, SAMPLE_RATE

RELEASE_DB_PER_S = 100.0
"""How fast attenuation goes back [dB/s] (chosen here)."""

HOLD_S = 0.01
"""How long attenuation stays before it goes back [s], the time between two peaks of 50 Hz (chosen
here). Going back from peak to peak would modulate a tone: its spurs were 43 to 50 dB down."""

ALIKE_DB = 0.1
"""Peaks that need this much less attenuation hold it all the same [dB]: those of a steady tone
differ by where they are sampled (chosen here)."""

BROKEN_DB = 80.0
"""A sample so far above the maximum [dB] is no sound but a fault, as one that is not finite."""

RETURN_S = 0.005
"""Time from silence to sound after a fault [s]."""

State = tuple[Tensor, Tensor, Tensor]
"""Attenuation left [dB], how long it is still held and time since the last fault [samples], `(*,)`
each."""


def limit(
    sound: Tensor, maximum_db_spl: float, before: State | None = None
) -> tuple[Tensor, State]:
    """Hold every sample at or below a maximum, whatever comes.

    Attenuation rises at once, as no look-ahead leaves it time, is held for 10 ms, and falls by a
    constant number of decibels a second, so that steady tones stay what they are. Faults (NaN,
    infinite, far above any sound) are muted, and the sound comes back along a short ramp.

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
        before = start, start, start + RETURN_S * SAMPLE_RATE
    # In double precision, so that hours of release are counted as exactly as milliseconds.
    state = [part.reshape(-1).cpu().numpy().copy() for part in before]
    rows = sound.detach().reshape(len(state[0]), -1).cpu().numpy()
    limited = torch.from_numpy(_limited(rows, maximum, *state)).to(sound.device)
    left, held, since = (
        torch.from_numpy(part).view(sound.shape[:-1]).to(sound.device) for part in state
    )
    return limited.view(sound.shape), (left, held, since)


@compiled(error_model="numpy")
def _limited(
    sound: np.ndarray,
    maximum: float,
    attenuation: np.ndarray,
    held: np.ndarray,
    since: np.ndarray,
) -> np.ndarray:
    """Rows `(R, T)` limited; the states `(R,)` are changed."""
    limited = np.empty_like(sound)
    fall, whole = RELEASE_DB_PER_S / SAMPLE_RATE, RETURN_S * SAMPLE_RATE
    for row in range(len(sound)):
        for n in range(sound.shape[1]):
            magnitude, wanted = abs(float(sound[row, n])) / maximum, 0.0
            faulty = not magnitude < 10 ** (BROKEN_DB / 20)  # NaN is below nothing
            if magnitude > 1 and not faulty:
                wanted = 20 * math.log10(magnitude)
            if wanted > 0 and wanted >= attenuation[row] - ALIKE_DB:
                attenuation[row] = max(attenuation[row], wanted)
                held[row] = HOLD_S * SAMPLE_RATE
            elif held[row] > 0:
                held[row] -= 1
            else:
                attenuation[row] = max(attenuation[row] - fall, wanted, 0.0)
            if faulty:
                since[row], limited[row, n] = 0.0, 0.0
            else:
                since[row] = min(since[row] + 1, whole)
                factor = since[row] / whole * 10 ** (-attenuation[row] / 20)
                limited[row, n] = min(max(sound[row, n] * factor, -maximum), maximum)
    return limited
