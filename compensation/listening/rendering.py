"""What a listener hears: through an aid, as loud as the test wants it, and never too loud."""

import io
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.signal
import soundfile
import torch
from torch import Tensor

from compensation.aid import Aid
from compensation.limiter import limit
from icsim.sound import REFERENCE_PA, SAMPLE_RATE, resample

OUTPUT_RATE_HZ = 48000
"""Of what a page plays [Hz]; browsers resample to it, if at all, without a change of levels."""

RAMP_S = 0.05
"""In which a sound rises and falls, at its ends [s] (chosen here)."""

Mode = Literal["gain", "loudness"]
"""Whether the louder of two sounds stays louder, or both are made equally loud."""

K_WEIGHTING = (
    (1.53512485958697, -2.69169618940638, 1.19839281085285, 1, -1.69065929318241, 0.73248077421585),
    (1.0, -2.0, 1.0, 1, -1.99004745483398, 0.99007225036621),
)
"""Second-order sections at 48 kHz. Source: ITU-R BS.1770-4, tables 1 and 2."""


@torch.no_grad()
def through_aid(
    aid: Aid,
    theta: Sequence[float],
    sound: Tensor,
    noise_reduction: float = 1.0,
    gain: float = 1.0,
) -> Tensor:
    """A sound `(T,)` [Pa] through an aid for θ, `(T,)` [Pa]: anything, if the aid is broken."""
    listener = torch.tensor([list(theta)], dtype=sound.dtype)
    return aid.process(sound[None], listener, noise_reduction, gain)[0]


def pair(
    first: Tensor,
    second: Tensor,
    mode: Mode,
    maximum_db_spl: float,
    full_scale_db_spl: float,
) -> tuple[bytes, bytes]:
    """Two sounds as the files that a page plays.

    Args:
        first: Pressure at `SAMPLE_RATE` [Pa], `(T,)`.
        second: The same sound otherwise processed, `(T,)`.
        mode: In `loudness`, both get the mean of their two levels, with K weighting [dB].
        maximum_db_spl: The highest magnitude of a sample [dB SPL].
        full_scale_db_spl: Level of a sound whose RMS is 1 [dB SPL].

    Returns:
        WAV files of `OUTPUT_RATE_HZ`, equally long.

    Raises:
        ValueError: If the two are not one sound each, equally long.
    """
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"a pair must be two sounds (T,), got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    # Faults are muted before anything spreads them; resampling and matching may raise peaks, so
    # the limiter is the last again.
    first, second = (
        resample(limit(s, maximum_db_spl)[0], SAMPLE_RATE, OUTPUT_RATE_HZ) for s in (first, second)
    )
    if mode == "loudness":
        first, second = equally_loud(first, second)
    a, b = (encoded(sound, maximum_db_spl, full_scale_db_spl) for sound in (first, second))
    return a, b


def equally_loud(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the mean of their levels; as they are if one is silent.

    Args:
        first: At `OUTPUT_RATE_HZ`, `(T,)`.
        second: `(T,)`.
    """
    first_db, second_db = weighted_level(first), weighted_level(second)
    if not (math.isfinite(first_db) and math.isfinite(second_db)):
        return first, second
    mean_db = (first_db + second_db) / 2
    return first * 10 ** ((mean_db - first_db) / 20), second * 10 ** ((mean_db - second_db) / 20)


def weighted_level(sound: Tensor) -> float:
    """Level with K weighting, without gating [dB SPL]; minus infinity for silence."""
    weighted = scipy.signal.sosfilt(K_WEIGHTING, sound.double().numpy())
    power = float(np.mean(np.square(weighted)))
    return 10 * math.log10(power / REFERENCE_PA**2) if power > 0 else -math.inf


def encoded(sound: Tensor, maximum_db_spl: float, full_scale_db_spl: float) -> bytes:
    """A sound with ramps, limited, as a WAV file of 24 bits.

    Args:
        sound: Pressure at `OUTPUT_RATE_HZ` [Pa], `(T,)`.
        maximum_db_spl: The highest magnitude of a sample [dB SPL]; full scale, if that is less.
        full_scale_db_spl: Level of a sound whose RMS is 1 [dB SPL].
    """
    maximum_db_spl = min(maximum_db_spl, full_scale_db_spl)
    limited, _ = limit(sound * ramps(len(sound)), maximum_db_spl)
    unit_pa = REFERENCE_PA * 10 ** (full_scale_db_spl / 20)
    # Towards zero, so that rounding cannot exceed the maximum.
    steps = (limited.double() / unit_pa * (2**23 - 1)).trunc().to(torch.int32) * 256
    file = io.BytesIO()
    soundfile.write(file, steps.numpy(), OUTPUT_RATE_HZ, "PCM_24", format="WAV")
    return file.getvalue()


def ramps(samples: int) -> Tensor:
    """Factors that rise from 0 at the start and fall to 0 at the end, `(samples,)`."""
    size = min(round(RAMP_S * OUTPUT_RATE_HZ), samples // 2)
    rise = torch.sin(torch.linspace(0, torch.pi / 2, size)) ** 2
    return torch.cat([rise, torch.ones(samples - 2 * size), rise.flip(0)])
