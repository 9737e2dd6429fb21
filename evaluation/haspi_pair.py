"""HASPI version 2 of one pair: cepstral coefficients of envelopes, alike at every modulation rate.

Source: Kates & Arehart 2021, Speech Commun. 131:35-46, as implemented by pyclarity 0.9.0.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from evaluation import haspi_networks
from evaluation.ear_model import BANDS, PASCAL_DB_SPL, RATE_HZ
from evaluation.ear_pair import Normals, cepstra, correlation, listen, loud_moments
from icsim.dsp import fft_convolve

FIRING_NOISE_DB = 0.1
"""Standard deviation of the noise in HASPI's envelopes [dB]."""

ENVELOPE_HZ = 320.0
"""Corner of the low-pass of HASPI's envelopes [Hz]; an eighth of their sample rate."""

MODULATIONS_HZ = (2, 6, 10, 16, 25, 40, 64, 100, 160, 256)
"""Centres of the modulation filters [Hz]."""

LONGEST_MODULATION_S, CONSTANT_Q_HZ = 0.24, 10
"""Length of the slow modulation filters [s]; from 10 Hz on, lengths fall as frequencies grow."""


def intelligibility(
    clean: Tensor,
    processed: Tensor,
    thresholds_db_hl: Tensor,
    normals: Normals,
    full_scale_db_spl: float = PASCAL_DB_SPL,
) -> Tensor:
    """HASPI of one pair at `RATE_HZ`, as `ear_pair.together` cuts it.

    Args:
        clean: `(T,)` in double precision.
        processed: `(T,)` in double precision.
        thresholds_db_hl: At `AUDIOMETRIC_HZ` [dB HL], `(6,)`.
        normals: Noise, in pyclarity's order.
        full_scale_db_spl: Level of a sound whose RMS is 1, if they are not in pascals [dB SPL].

    Returns:
        A scalar.

    Raises:
        ValueError: If nothing of the clean sound is heard.
    """
    ears = torch.zeros_like(thresholds_db_hl), thresholds_db_hl
    pair = listen((clean, processed), ears, full_scale_db_spl)
    for _ in range(2):
        normals(BANDS, len(clean))  # of the motion, which is not needed here
    slow, slow_heard = (_slow_envelope(row) for row in (pair.reference_db, pair.heard_db))
    moments = loud_moments(slow)
    modulation = [_modulated(_cepstra(row[:, moments], normals)) for row in (slow, slow_heard)]
    return _networks(correlation(*modulation).mean(1))


def _cepstra(envelope_db: Tensor, normals: Normals) -> Tensor:
    """Cepstral coefficients of an envelope with the nerve's noise, `(C, N)` to `(5, N)`."""
    noise = normals(envelope_db.shape[1], BANDS)
    noisy = envelope_db if noise is None else envelope_db + FIRING_NOISE_DB * noise.T
    return cepstra(noisy)


def _slow_envelope(envelope_db: Tensor) -> Tensor:
    """Low-pass at 320 Hz and take every ninth sample, `(C, T)` to `(C, N)`."""
    step = int(RATE_HZ // (8 * ENVELOPE_HZ))
    half = round(0.7 / ENVELOPE_HZ * RATE_HZ) // 2
    parts = math.ceil(2 * half / step)
    taps = np.pad(np.hanning(2 * half + 2)[1:-1], (0, parts * step - 2 * half))
    weights = torch.from_numpy(taps / taps.sum()).to(envelope_db).view(parts, step)
    count = math.ceil(envelope_db.shape[1] / step)
    room = (count + parts - 1) * step - (half - 1) - envelope_db.shape[1]
    blocks = pad(envelope_db, (half - 1, room)).unflatten(1, (-1, step))
    weighted = blocks @ weights.T
    return sum(weighted[:, n : n + count, n] for n in range(parts))


def _modulated(coefficients: Tensor) -> Tensor:
    """Modulation filters, `(5, N)` to `(10, 5, N)`."""
    rate_hz = 8 * ENVELOPE_HZ
    filters, half = _modulation_filters(rate_hz)
    centred = coefficients - coefficients.mean(-1, keepdim=True)
    return fft_convolve(centred, filters.to(coefficients).unsqueeze(1), advance=half)


@functools.cache
def _modulation_filters(rate_hz: float) -> tuple[Tensor, int]:
    """Linear-phase filters `(10, L)`, and half their length."""
    length_s = [
        LONGEST_MODULATION_S * min(1, CONSTANT_Q_HZ / centre_hz) for centre_hz in MODULATIONS_HZ
    ]
    halves = [int(length * rate_hz / 2) for length in length_s]
    filters = np.zeros((len(halves), 2 * max(halves) + 1))
    for row, half, centre in zip(filters, halves, MODULATIONS_HZ, strict=True):
        middle = max(halves)
        window = np.hanning(2 * half + 1)
        # Demodulated, smoothed and modulated again; the lowest one is smoothed alone.
        carrier = 2 * np.cos(2 * np.pi * centre / rate_hz * np.arange(-half, half + 1))
        lowest = centre == MODULATIONS_HZ[0]
        row[middle - half : middle + half + 1] = window / window.sum() * (1 if lowest else carrier)
    return torch.from_numpy(filters), max(halves)


def _networks(modulation: Tensor) -> Tensor:
    """Mean of ten networks of correlations in ten modulation bands, `(10,)` to a scalar."""
    hidden, output = (weights.to(modulation) for weights in _network_weights())
    first = torch.sigmoid(hidden[:, 0] + modulation @ hidden[:, 1:])
    last = torch.sigmoid(output[:, 0] + (first * output[:, 1:]).sum(1))
    return last.mean() / haspi_networks.LARGEST


@functools.cache
def _network_weights() -> tuple[Tensor, Tensor]:
    numbers = [
        torch.tensor([float(number) for number in table.split()], dtype=torch.float64)
        for table in (haspi_networks.HIDDEN, haspi_networks.OUTPUT)
    ]
    return numbers[0].view(10, len(MODULATIONS_HZ) + 1, 4), numbers[1].view(10, 5)
