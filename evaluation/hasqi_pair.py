"""HASQI version 2 of one pair: envelopes, fine structure and long-term spectrum, all alike.

Source: Kates & Arehart 2014, JAES 62:99-117, as implemented by pyclarity 0.9.0.
"""

import math

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from evaluation.ear_model import BANDS, PASCAL_DB_SPL, RATE_HZ, TINY, centre_hz
from evaluation.ear_pair import HEARD_DB, Normals, cepstra, correlation, listen, loud_moments
from icsim.dsp import fft_convolve
from icsim.nal_r import nal_r_taps

SEGMENT_S, SEGMENT_LAG_S = 0.016, 0.001
"""Segments of HASQI, half of them overlapping, and how far each is moved [s]."""

SYNCHRONY_HZ, SYNCHRONY_ORDER = 3500.0, 5
"""Corner and order of the low-pass by which nerves lose the fine structure [Hz].

Source: Johnson 1980, JASA 68:1115-1122.
"""

NAL_R_ORDER = 140
"""Of the filter that amplifies HASQI's reference."""


def quality(
    clean: Tensor,
    processed: Tensor,
    thresholds_db_hl: Tensor,
    normals: Normals,
    full_scale_db_spl: float = PASCAL_DB_SPL,
) -> Tensor:
    """HASQI of one pair; as `haspi_pair.intelligibility`."""
    sounds = _amplified(clean, thresholds_db_hl), processed
    pair = listen(sounds, (thresholds_db_hl, thresholds_db_hl), full_scale_db_spl, normals)
    smooth, smooth_heard = _smoothed(pair.reference_db), _smoothed(pair.heard_db)
    moments = loud_moments(smooth)
    envelopes = correlation(*(cepstra(row[:, moments]) for row in (smooth, smooth_heard))).mean()
    fine_structure = _fine_structure(*pair.motions)
    spectra = _spectral_likeness(pair.reference_spectrum_db, pair.heard_spectrum_db)
    return envelopes.square() * fine_structure * spectra


def _smoothed(envelope_db: Tensor) -> Tensor:
    """Means of HASQI's segments, `(C, T)` to `(C, N)`; the first and the last are halves."""
    rising, falling = _halves(envelope_db)
    up, down = (_blocks(envelope_db) @ half for half in (rising, falling))
    whole = (up[:, 1:-1] + down[:, 2:]) / (rising.sum() + falling.sum())
    return torch.cat([down[:, :1] / falling.sum(), whole, up[:, -1:] / rising.sum()], 1)


def _fine_structure(reference: Tensor, processed: Tensor) -> Tensor:
    """Mean correlation of the motion in short segments, `(C, T)` to a scalar."""
    level_db = _segment_levels(reference)
    audible = (level_db > HEARD_DB) & loud_moments(level_db)
    if not bool(audible.any()):
        raise ValueError(
            "no band of the clean sound is above threshold; give it in pascals, or leave it out"
        )
    falls = (torch.from_numpy(centre_hz()).to(processed) / SYNCHRONY_HZ) ** (2 * SYNCHRONY_ORDER)
    weight = (1 / (1 + falls).sqrt()).unsqueeze(1).expand_as(audible)[audible]
    segments, segments_heard = (_segments(motion, audible) for motion in (reference, processed))
    lags = round(SEGMENT_LAG_S * RATE_HZ)
    size = next_fast_len(segments.shape[1] + lags, real=True)
    spectra = torch.fft.rfft(segments, size) * torch.fft.rfft(segments_heard, size).conj()
    product = torch.fft.irfft(spectra, size)
    product = torch.cat([product[:, : lags + 1], product[:, -lags:]], 1)
    unbias = _unbias(audible.shape[1], lags).to(product)[audible.nonzero()[:, 1]]
    power, power_heard = segments.square().sum(1), segments_heard.square().sum(1)
    moves = (power > TINY) & (power_heard > TINY)
    norm = torch.where(moves, power * power_heard, 1).sqrt()
    likeness = torch.where(moves, (product * unbias).abs().amax(1) / norm, 0).clamp(0, 1)
    return (weight * likeness).sum() / weight.sum()


def _segment_levels(motion: Tensor) -> Tensor:
    """Levels of all segments [dB SL], `(C, T)` to `(C, N)`: the motion has its envelope in dB."""
    halves, blocks = torch.stack(_halves(motion), 1), _blocks(motion)
    sums, squares = blocks @ halves, blocks.square() @ halves.square()
    whole, squared = (part[:, 1:-1, 0] + part[:, 2:, 1] for part in (sums, squares))
    power = (squared - whole.square() / (2 * len(halves))) / halves.square().sum()
    ends = [
        (squares[:, [n], side] - sums[:, [n], side].square() / len(halves))
        / halves[:, side].square().sum()
        for n, side in ((0, 1), (-1, 0))
    ]
    return (2 * torch.cat([ends[0], power, ends[1]], 1).clamp(min=0)).sqrt()


def _segments(motion: Tensor, chosen: Tensor) -> Tensor:
    """Some of the segments `(C, N)`, windowed and without their means: `(C, T)` to `(M, L)`."""
    blocks, window = _blocks(motion), torch.cat(_halves(motion))
    half, count = len(window) // 2, blocks.shape[1]
    rows = torch.cat([blocks.flatten(0, 1), blocks.new_zeros(1, half)])
    bands, places = chosen.nonzero().unbind(1)
    first, last = places == 0, places == count - 1
    before, nothing = bands * count + places, len(rows) - 1
    # A segment and the next half; the first and the last segment are halves beside silence.
    left = torch.where(first, nothing, before)
    right = torch.where(last, nothing, before + (~first).long())
    pairs = torch.stack([left, right], 1)
    segments = rows.index_select(0, pairs.flatten()).view(len(pairs), 2 * half) * window
    alive = (pairs != nothing).to(segments)
    means = segments.sum(1, keepdim=True) / (half * alive.sum(1, keepdim=True))
    return segments - (means * alive).repeat_interleave(half, 1)


def _unbias(count: int, lags: int) -> Tensor:
    """What makes products of windowed segments independent of lags, `(N, 2 lags + 1)`."""
    window = np.hanning(2 * _half_segment())
    scales = []
    for shape in (window[len(window) // 2 :], window):
        products = np.correlate(shape, shape, "full")[len(shape) - 1 :][: lags + 1]
        scales.append(products[0] / np.concatenate([products, products[:0:-1]]))
    return torch.from_numpy(np.stack([scales[0 < n < count - 1] for n in range(count)]))


def _half_segment() -> int:
    return round(SEGMENT_S * RATE_HZ) // 2


def _halves(like: Tensor) -> tuple[Tensor, Tensor]:
    """The rising and the falling half of a segment's window, `(L / 2,)` each."""
    window = torch.from_numpy(np.hanning(2 * _half_segment())).to(like)
    return window[: len(window) // 2], window[len(window) // 2 :]


def _blocks(rows: Tensor) -> Tensor:
    """`(C, T)` cut into half segments, `(C, N, L / 2)`."""
    half = _half_segment()
    return rows[:, : rows.shape[1] // half * half].unflatten(1, (-1, half))


def _spectral_likeness(reference_db: Tensor, heard_db: Tensor) -> Tensor:
    """How little the long-term spectrum and its slope have changed, `(C,)` to a scalar."""
    first, second = (10 ** (level_db / 20) for level_db in (reference_db, heard_db))
    change = first / first.sum() - second / second.sum()
    loudness = 1 - BANDS * _deviation(change) / 2.5
    slope = 1 - BANDS * _deviation(change.diff())
    return 0.579 * loudness.clamp(0, 1) + 0.421 * slope.clamp(0, 1)


def _deviation(values: Tensor) -> Tensor:
    """Standard deviation, whose gradient is finite where it is zero."""
    return torch.linalg.vector_norm(values - values.mean()) / math.sqrt(len(values))


def _amplified(clean: Tensor, thresholds_db_hl: Tensor) -> Tensor:
    """The clean sound through NAL-R, as early as pyclarity has it: by half the filter's length."""
    taps = torch.from_numpy(nal_r_taps(thresholds_db_hl.tolist(), NAL_R_ORDER, RATE_HZ)).to(clean)
    return fft_convolve(clean, taps, advance=len(taps) - 1)
