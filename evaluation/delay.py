"""By how much a processed sound is late, and two sounds brought into time.

Nearly every score compares two sounds moment by moment, and every device is late. What is not
brought into time is scored as if it were distorted.
"""

import math

import torch
from torch import Tensor

from evaluation.table import Score, Sounds, obstacle

LONGEST_S = 0.5
"""Longer delays are refused [s] (chosen here; hearing aids take 10 ms, networks up to seconds)."""

WHITENING = 0.5
"""Exponent of the cross-spectrum's magnitude that is divided out: 0 none, 1 all of it.

Half keeps the low frequencies of speech from smearing the peak, and noise above them from
drowning it (measured on speech at -20 to 20 dB SNR; Knapp & Carter 1976 for the extremes).
"""

NEAR_S = 0.01
"""What is closer to the best match counts as the same match [s] (chosen here)."""

CLEAR = 1.5
"""A match counts if it is so much better than any other, further away.

Measured: unrelated sounds reach 1.2; speech behind NAL-R 2.4 and more at -20 dB SNR, 10 and more
at 20 dB.
"""


def delay(
    clean: Sounds, processed: Sounds, sample_rate: float, longest_s: float = LONGEST_S
) -> Score:
    """How late each processed sound is [s], to the sample; negative if it is early.

    Found where the cross-correlation is largest, whichever its sign: a device may invert.

    Args:
        clean: What went in, or the clean part of it, `(B, T)`; may differ in length from
        processed: what came out, `(B, T)`.
        sample_rate: Of both [Hz].
        longest_s: Delays beyond it are not believed [s].

    Returns:
        Delay [s], `(B,)`; missing where no match is clear or the best is beyond `longest_s`.

    >>> sound = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    >>> late = torch.cat([torch.zeros(1, 80), sound], 1)
    >>> delay(sound, late, 8000).values.tolist()
    [0.01]
    """
    if len(clean) != len(processed):
        raise ValueError(
            f"{len(clean)} clean and {len(processed)} processed sounds; match them first"
        )
    if not 0 <= longest_s < math.inf:
        raise ValueError(f"longest_s must be 0 or more and finite, got {longest_s}")
    delays = [_delay(*pair, sample_rate, longest_s) for pair in zip(clean, processed, strict=True)]
    values = [math.nan if reason else late_s for late_s, reason in delays]
    return Score(torch.tensor(values, dtype=torch.float64), tuple(reason for _, reason in delays))


def in_time(clean: Tensor, processed: Tensor, late: int) -> tuple[Tensor, Tensor]:
    """The parts of two sounds `(T,)` that belong together, equally long.

    Args:
        clean: What went in.
        processed: What came out.
        late: By how many samples; negative if it is early.
    """
    clean, processed = clean[max(0, -late) :], processed[max(0, late) :]
    shared = min(len(clean), len(processed))
    return clean[:shared], processed[:shared]


def _delay(
    clean: Tensor, processed: Tensor, sample_rate: float, longest_s: float
) -> tuple[float, str | None]:
    """Delay [s] of one pair, or why there is none."""
    reason = obstacle(clean, processed)
    if reason:
        return math.nan, reason
    match, lags = _correlation(clean, processed)
    best = match.argmax()
    late = int(lags[best])
    far = (lags - late).abs() > NEAR_S * sample_rate
    if not bool(far.any()):
        return math.nan, "too short to find a delay"
    if match[best] < CLEAR * match[far].max():
        return math.nan, "no shift makes the two clearly alike"
    if abs(late) > longest_s * sample_rate:
        return math.nan, f"{late / sample_rate:+.3f} s, beyond {longest_s:g} s"
    return late / sample_rate, None


def _correlation(clean: Tensor, processed: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitudes of the correlation and their lags, where half of the shorter sound overlaps."""
    count = 1 << (len(clean) + len(processed) - 1).bit_length()
    spectra = (torch.fft.rfft(sound.double().cpu(), count) for sound in (clean, processed))
    cross = next(spectra).conj() * next(spectra)
    magnitude = cross.abs()
    whitened = cross / (magnitude + 1e-12 * magnitude.max()) ** WHITENING
    lags = torch.arange(count)
    lags = torch.where(lags < len(processed), lags, lags - count)
    overlap = torch.minimum(
        (len(processed) - lags).clamp(max=len(clean)), (len(clean) + lags).clamp(max=len(processed))
    )
    overlapping = overlap >= 0.5 * min(len(clean), len(processed))
    return torch.fft.irfft(whitened, count)[overlapping].abs(), lags[overlapping]
