"""Prescribed gains: what a clinic would fit from the audiogram alone."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d

from icsim.audiogram import Audiogram
from icsim.nal_r import NAL_R_HZ, nal_r_taps
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import SAMPLE_RATE, calibrate

from .bands import HOP, WINDOW, Bands, ShortTime

NAL_R_ORDER, NAL_R_RATE_HZ = 220, 44100.0
"""Order of the filter at a sample rate [Hz]; at other rates it lasts as long (5 ms).

Source: the baseline of the Clarity challenges (pyclarity).
"""

NAL_R_DELAY_MS = NAL_R_ORDER / 2 / NAL_R_RATE_HZ * 1e3
"""Half the filter: how late a sound would leave a device that did `nal_r` [ms]."""

COMPRESSED_BANDS = 12
"""Bands that are compressed each by itself (chosen here)."""

ATTACK_S, RELEASE_S = 0.005, 0.1
"""Time constants of the level that a gain follows, rising and falling [s] (chosen here)."""

AVERAGE_DB_SPL, KNEE_DB_SPL = 65.0, 45.0
"""Levels of the speech at which gains are those of NAL-R, and below which they grow no more."""


def nal_r(sound: Tensor, audiogram: Audiogram, sample_rate: float = SAMPLE_RATE) -> Tensor:
    """Amplify by NAL-R: one linear-phase filter, its delay compensated to the sample.

    The output is aligned with the input, which takes the future of the sound (half the filter's
    length, 2.5 ms); an ear without any loss gets its sound unchanged.

    Args:
        sound: Pressure [Pa], `(B, T)`.
        audiogram: The listener's thresholds.
        sample_rate: Of the sound [Hz], above 12 kHz.

    Returns:
        Pressure [Pa], `(B, T)`.

    Raises:
        ValueError: If the sound is not `(B, T)` or the sample rate too low for the gain at 6 kHz.

    Source: Byrne & Dillon 1986, Ear Hear. 7:257-265; the filter of the Clarity challenges.
    """
    if sound.ndim != 2:
        raise ValueError(f"sound must be (B, T), got {tuple(sound.shape)}; add or merge dimensions")
    # The taps are symmetric, so the correlation that conv1d computes is the convolution wanted.
    taps = _taps(audiogram, sample_rate).to(sound)
    return conv1d(sound.unsqueeze(1), taps.view(1, 1, -1), padding=len(taps) // 2).squeeze(1)


def nal_r_gains_db(
    audiogram: Audiogram,
    frequencies_hz: Sequence[float] | Tensor,
    sample_rate: float = SAMPLE_RATE,
) -> Tensor:
    """Gains that `nal_r` applies: the filter's own response, for gain curves.

    Args:
        audiogram: The listener's thresholds.
        frequencies_hz: Where [Hz], `(K,)`.
        sample_rate: Of the sounds to be amplified [Hz].

    Returns:
        Gains [dB], `(K,)`.
    """
    taps = _taps(audiogram, sample_rate)
    frequencies = torch.as_tensor(frequencies_hz, dtype=taps.dtype)
    phase = -2j * torch.pi * torch.outer(frequencies / sample_rate, torch.arange(len(taps)))
    return 20 * torch.log10((taps * phase.exp()).sum(-1).abs()).to(torch.get_default_dtype())


def nal_r_compressed(
    sound: Tensor, audiogram: Audiogram, sample_rate: float = SAMPLE_RATE
) -> Tensor:
    """NAL-R with wide-dynamic-range compression: more gain for soft sounds, less for loud ones.

    Speech-shaped noise at 65 dB SPL gets NAL-R's gain. In each band the output then grows by
    `1 / compression_ratio` dB a dB of input, down to where speech at 45 dB SPL lies in the band;
    below, the gain stays. No sound is made softer. The output is aligned with the input, which
    takes 7.9 ms of its future; an ear without loss gets its sound unchanged to rounding.

    Args:
        sound: Pressure [Pa], `(B, T)`.
        audiogram: The listener's thresholds.
        sample_rate: Of the sound [Hz]; the bands are made for `SAMPLE_RATE` alone.

    Returns:
        Pressure [Pa], `(B, T)`.

    Raises:
        ValueError: If the sound is not `(B, T)` or has another sample rate.

    Source: gains through NAL-R at 65 dB SPL, and a knee where softer speech lies in each band, as
    openMHA does; the ratio is FIG6's.
    """
    if sound.ndim != 2:
        raise ValueError(f"sound must be (B, T), got {tuple(sound.shape)}; add or merge dimensions")
    if sample_rate != SAMPLE_RATE:
        raise ValueError(
            f"compression needs a sample rate of {SAMPLE_RATE} Hz, got {sample_rate}; resample"
        )
    short_time = ShortTime(WINDOW, HOP)
    bands = Bands(COMPRESSED_BANDS, short_time)
    bins_hz = torch.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    average_db = nal_r_gains_db(audiogram, bins_hz).to(sound)
    ratio = compression_ratio(audiogram.at(bands.centres_hz)).to(sound)
    speech_db = _average_speech_db().to(sound)
    short_time, bands = short_time.to(sound), bands.to(sound)
    spectra = short_time.spectra(sound)
    above_db = _followed(bands.levels(spectra)) - speech_db.unsqueeze(-1)
    above_db = above_db.clamp(min=KNEE_DB_SPL - AVERAGE_DB_SPL)
    change_db = bands.spread((1 / ratio - 1).unsqueeze(-1) * above_db)
    gains_db = (average_db.unsqueeze(-1) + change_db).clamp(min=0)
    return short_time.sound(spectra * 10 ** (gains_db / 20), sound.shape[-1])


def compression_ratio(threshold_db_hl: Tensor) -> Tensor:
    """Decibels of input for one of output: the mean that FIG6 prescribes between 40 and 95 dB SPL.

    Args:
        threshold_db_hl: Thresholds [dB HL], `(*,)`.

    Returns:
        Ratios, `(*,)`: 1 up to 20 dB HL, the largest (2.55) at 65.

    Source: Killion & Fikret-Pasa 1993, Hear. J. 46(11):31-36 (gains of FIG6).

    >>> compression_ratio(torch.tensor([20.0, 40.0, 60.0])).round(decimals=2)
    tensor([1.0000, 1.5700, 2.5400])
    """
    soft_db = (threshold_db_hl - 20).clamp(min=0) - (threshold_db_hl - 60).clamp(min=0) / 2
    loud_db = 0.1 * (threshold_db_hl - 40).clamp(min=0) ** 1.4
    return 55 / (55 + loud_db - soft_db)


def _followed(levels_db: Tensor) -> Tensor:
    """Levels that rise fast and fall slowly, `(B, bands, L)`."""
    attack, release = (math.exp(-HOP / SAMPLE_RATE / time_s) for time_s in (ATTACK_S, RELEASE_S))
    followed = [levels_db[..., 0]]
    for level_db in levels_db.unbind(-1)[1:]:
        above_db = followed[-1] - level_db
        followed.append(level_db + torch.maximum(attack * above_db, release * above_db))
    return torch.stack(followed, -1)


@functools.cache
def _average_speech_db() -> Tensor:
    """What `_followed` says of speech-shaped noise at 65 dB SPL, `(bands,)`."""
    noise = speech_shaped_noise(round(4 * SAMPLE_RATE), np.random.default_rng(0))
    short_time = ShortTime(WINDOW, HOP)
    spectra = short_time.spectra(calibrate(noise, AVERAGE_DB_SPL).unsqueeze(0))
    levels_db = _followed(Bands(COMPRESSED_BANDS, short_time).levels(spectra))
    return levels_db[0, :, round(RELEASE_S * SAMPLE_RATE / HOP) :].mean(-1)


def _taps(audiogram: Audiogram, sample_rate: float) -> Tensor:
    """The NAL-R filter: an odd number of symmetric taps, so that its delay is a whole number."""
    if sample_rate <= 2 * NAL_R_HZ[-1]:
        raise ValueError(
            f"NAL-R needs a sample rate above {2 * NAL_R_HZ[-1]} Hz, got {sample_rate}; resample"
        )
    order = 2 * round(NAL_R_ORDER / 2 * sample_rate / NAL_R_RATE_HZ)
    return torch.from_numpy(nal_r_taps(audiogram.at(NAL_R_HZ).tolist(), order, sample_rate))
