"""What a device adds that nobody played: images, harmonics, hum, hiss.

Silence, steady tones and a chirp go in. Whatever comes out beside them is spurious, and so are
harmonics. What a linear filter does is not, nor is a gain that changes slowly.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from icsim.sound import REFERENCE_PA, SAMPLE_RATE, level

Device = Callable[[Tensor], Tensor]
"""From sounds [Pa] `(B, T)` to processed ones, `(B, T)`."""

TONES_HZ = (233.0, 487.0, 997.0, 1999.0, 3989.0, 7993.0)
"""In no simple ratio to each other or to rates of frames, so that no image hides (chosen here)."""

LEVELS_DB_SPL = (40.0, 65.0, 90.0)
"""Soft, as in conversation, loud (chosen here)."""

SETTLE_S, STEADY_S, CHIRP_S = 0.7, 0.7, 2.0
"""How long a tone sounds before it counts, how long it counts, and how long a chirp lasts [s]."""

TONE_HZ = 20.0
"""What is closer to a tone counts as the tone [Hz]; a gain may change that fast."""

CHIRP_HZ, CHIRP_LATE_S = 300.0, 0.02
"""What is closer to a chirp, now or up to 20 ms ago, counts as the chirp [Hz, s]."""

CHIRP_WINDOW = 1024
"""Frames in which a chirp is followed [samples]."""


@dataclasses.dataclass(frozen=True)
class Artefacts:
    """Spurious energy of one device, in dB re the tone or the chirp as they come out of it."""

    spur_db: float
    """The worst of all tones and chirps."""
    silence_db: float
    """RMS level of what comes out when nothing goes in [dB SPL]; minus infinity for silence."""
    tones_db: dict[tuple[float, float], float]
    """By frequency [Hz] and level [dB SPL] of the tone."""
    chirps_db: dict[float, float]
    """By level of the chirp [dB SPL]."""


def artefacts(
    process: Device,
    sample_rate: float = SAMPLE_RATE,
    tones_hz: Sequence[float] = TONES_HZ,
    levels_db_spl: Sequence[float] = LEVELS_DB_SPL,
) -> Artefacts:
    """Measure a device.

    Args:
        process: The device; all tones come in one batch, so do all chirps.
        sample_rate: Of what it takes and gives [Hz].
        tones_hz: Frequencies of the tones.
        levels_db_spl: Levels of tones and chirps.

    Raises:
        ValueError: If a tone cannot be told from silence or from its own mirror image, or the
            device returns another shape or what is not finite.

    >>> artefacts(lambda sound: -sound, tones_hz=[1000.0], levels_db_spl=[65.0]).spur_db < -100
    True
    """
    cases = [(float(hz), float(db)) for hz in tones_hz for db in levels_db_spl]
    frequencies = [hz for hz, _ in cases]
    tones = torch.stack([_tone(hz, sample_rate) for hz in frequencies])
    output = _processed(process, _at_levels(tones, [db for _, db in cases]))
    tones_db = dict(zip(cases, beside_tone_db(output, frequencies, sample_rate), strict=True))
    output = _processed(process, _at_levels(_chirp(sample_rate).unsqueeze(0), levels_db_spl))
    levels = map(float, levels_db_spl)
    chirps_db = dict(zip(levels, beside_chirp_db(output, sample_rate), strict=True))
    silence_db = level(_processed(process, torch.zeros(1, round(sample_rate)))).item()
    worst_db = max(*tones_db.values(), *chirps_db.values())
    return Artefacts(worst_db, silence_db, tones_db, chirps_db)


def beside_tone_db(
    sound: Tensor, frequencies_hz: Sequence[float], sample_rate: float = SAMPLE_RATE
) -> list[float]:
    """Energy further than 20 Hz from a tone, relative to that within, in the last 0.7 s [dB].

    Args:
        sound: A tone as it came out of a device, `(B, T)`.
        frequencies_hz: What each tone was, B of them.
        sample_rate: Of the sounds [Hz].

    Returns:
        B numbers; minus infinity where nothing came out. Where a filter took the tone away, what
        is left is its rounding to single precision, 150 dB below what went in.
    """
    steady = sound[:, -round(STEADY_S * sample_rate) :].double()
    # The main lobe is 7 bins to each side, 10 Hz; the rest lies below -190 dB.
    window = torch.kaiser_window(steady.shape[-1], periodic=False, beta=22.0, dtype=torch.float64)
    power = torch.fft.rfft(steady * window).abs().square()
    hz = torch.fft.rfftfreq(steady.shape[-1], 1 / sample_rate, dtype=torch.float64)
    frequencies = torch.tensor(frequencies_hz, dtype=torch.float64)
    return _ratio_db(power, (hz - frequencies.unsqueeze(1)).abs() <= TONE_HZ)


def beside_chirp_db(sound: Tensor, sample_rate: float = SAMPLE_RATE) -> list[float]:
    """Energy far from the chirp of this module, relative to that near it [dB].

    Args:
        sound: The chirp as it came out of a device, at most 20 ms late, `(B, T)`.
        sample_rate: Of the sounds [Hz].

    Returns:
        B numbers; minus infinity where nothing came out.
    """
    window = torch.kaiser_window(CHIRP_WINDOW, periodic=False, beta=16.0, dtype=torch.float64)
    frames = sound.double().unfold(-1, CHIRP_WINDOW, CHIRP_WINDOW // 4)
    power = torch.fft.rfft(frames * window).abs().square()
    time = (torch.arange(frames.shape[1]) * (CHIRP_WINDOW // 4) + CHIRP_WINDOW / 2) / sample_rate
    whole = (time > 0.1) & (time < sound.shape[-1] / sample_rate - 0.1)
    now = _chirp_hz(time[whole], sample_rate).unsqueeze(1)
    before = _chirp_hz(time[whole] - CHIRP_LATE_S, sample_rate).unsqueeze(1)
    hz = torch.fft.rfftfreq(CHIRP_WINDOW, 1 / sample_rate)
    near = (hz > before - CHIRP_HZ) & (hz < now + CHIRP_HZ)
    return _ratio_db(power[:, whole].flatten(1), near.flatten().expand(len(sound), -1))


def _tone(hz: float, sample_rate: float) -> Tensor:
    if not 2 * TONE_HZ <= hz <= sample_rate / 2 - 2 * TONE_HZ:
        raise ValueError(
            f"a tone of {hz} Hz cannot be judged at {sample_rate} Hz; "
            f"use {2 * TONE_HZ:g} to {sample_rate / 2 - 2 * TONE_HZ:g} Hz"
        )
    time = torch.arange(round((SETTLE_S + STEADY_S) * sample_rate), dtype=torch.float64)
    return torch.sin(2 * torch.pi * hz / sample_rate * time)


def _chirp(sample_rate: float) -> Tensor:
    time = torch.arange(round(CHIRP_S * sample_rate), dtype=torch.float64) / sample_rate
    mean_hz = (_chirp_hz(time, sample_rate) + _chirp_hz(torch.zeros(()), sample_rate)) / 2
    return torch.sin(2 * torch.pi * mean_hz * time)


def _at_levels(sines: Tensor, levels_db_spl: Sequence[float]) -> Tensor:
    """In pascals, `(B, T)`; each begins gently and reaches its level after 1000 samples."""
    peaks = math.sqrt(2) * REFERENCE_PA * 10 ** (torch.tensor(levels_db_spl).double() / 20)
    begin = (torch.arange(sines.shape[-1]) / 1000).clamp(max=1)
    return (peaks.unsqueeze(1) * begin * sines).float()


def _chirp_hz(time: Tensor, sample_rate: float) -> Tensor:
    """Frequency at a time [s]: from 500 Hz to four fifths of what can be sampled."""
    return 500 + (0.4 * sample_rate - 500) * time / CHIRP_S


@torch.no_grad()
def _processed(process: Device, sound: Tensor) -> Tensor:
    output = process(sound)
    if output.shape != sound.shape:
        raise ValueError(
            f"the device made {tuple(output.shape)} of {tuple(sound.shape)}; "
            "it must return every sound at its length"
        )
    if not bool(output.isfinite().all()):
        raise ValueError("the device returned NaN or infinity; mend it before measuring it")
    return output


def _ratio_db(power: Tensor, wanted: Tensor) -> list[float]:
    """Power elsewhere over power where it is wanted, each `(B, …)`."""
    near = torch.where(wanted, power, 0).sum(-1)
    beside = torch.where(wanted, 0, power).sum(-1)
    ratio = torch.where(beside > 0, beside / near, 0)
    return (10 * torch.log10(ratio)).tolist()
