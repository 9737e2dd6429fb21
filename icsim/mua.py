"""Spikes into bins: from broadband voltage as multi-unit activity, or from spike times.

Band, threshold and bins are the published ones. Source: arXiv 2506.03088.
"""

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from icsim.sound import RESPONSE_RATE
from icsim.validation import MISSING_COUNT

BAND_HZ = (700.0, 5000.0)
"""Pass band of spikes [Hz]. Source: arXiv 2506.03088."""

THRESHOLD_SD = 3.5
"""Threshold in standard deviations of the noise. Source: arXiv 2506.03088."""

MAD_OF_NORMAL = 0.6745
"""Median absolute deviation of a normal distribution of SD 1. Source: arXiv 2506.03088."""

FILTER_ORDER = 2
"""Of the Butterworth filter, which runs forwards and backwards; with a higher order large spikes
ring, and are counted again (chosen here)."""


def multi_unit_activity(
    trace: Tensor | np.ndarray,
    sample_rate: float,
    start_s: float,
    bins: int,
    bin_rate_hz: float = RESPONSE_RATE,
) -> Tensor:
    """Upward threshold crossings of each channel in bins that begin with a stimulus.

    The threshold is taken from the whole trace, so give all of it that was recorded: what lies
    before and after the stimulus steadies the estimate and keeps the filter's ends away.

    Args:
        trace: Broadband voltage in any unit, `(T,)` or `(C, T)`.
        sample_rate: Of the trace [Hz].
        start_s: When the stimulus began, since the trace began [s].
        bins: How many bins.
        bin_rate_hz: Bins a second [Hz]; those of 1.311 ms by default.

    Returns:
        Counts, uint8 `(C, N)`; C is 1 for a single trace.

    Raises:
        ValueError: If the sample rate is too low, the trace does not hold the bins, or a channel
            is constant or has samples that are not finite.

    >>> multi_unit_activity(torch.randn(2, 24414), 24414.0625, 0.1, 600).shape
    torch.Size([2, 600])
    """
    trace = np.atleast_2d(np.asarray(trace))
    if trace.ndim != 2:
        raise ValueError(f"a trace must be (T,) or (C, T), not {trace.shape}")
    if sample_rate <= 2 * BAND_HZ[1]:
        raise ValueError(
            f"a trace at {sample_rate} Hz does not hold frequencies up to {BAND_HZ[1]:.0f} Hz; "
            f"give one recorded at more than {2 * BAND_HZ[1]:.0f} Hz"
        )
    end_s, length_s = start_s + bins / bin_rate_hz, trace.shape[-1] / sample_rate
    if bins < 1 or not 0 <= start_s <= end_s <= length_s + 0.5 / sample_rate:
        raise ValueError(
            f"a trace of {length_s:.3f} s does not hold {bins} bins from {start_s} s, which end "
            f"at {end_s:.3f} s; check onset and stimulus, or cut the stimulus"
        )
    times = (crossings(row, sample_rate, f"channel {c}") for c, row in enumerate(trace))
    return torch.stack([count_spikes(t, start_s, bins, bin_rate_hz) for t in times])


def crossings(trace: np.ndarray, sample_rate: float, name: str = "trace") -> np.ndarray:
    """Times [s] at which one filtered trace rises through the threshold: `(T,)` to `(S,)`.

    The filter runs both ways: it delays nothing, so that a spike falls into the bin in which it
    was fired, and keeps the shape of spikes. What it sees of the future, about 1 ms, is less than
    the time that a sound takes to the midbrain.
    """
    trace = np.asarray(trace, np.float64)
    if not np.isfinite(trace).all():
        bad = int((~np.isfinite(trace)).sum())
        raise ValueError(f"{name}: {bad} samples are NaN or infinite; cut or leave it out")
    if np.median(np.abs(trace - np.median(trace))) == 0:
        raise ValueError(
            f"{name}: silent, more than half of its samples have one value, so its noise cannot "
            "be estimated; leave it out"
        )
    band = signal.butter(FILTER_ORDER, BAND_HZ, "bandpass", fs=sample_rate, output="sos")
    filtered = signal.sosfiltfilt(band, trace)
    deviation = np.median(np.abs(filtered - np.median(filtered))) / MAD_OF_NORMAL
    above = filtered >= THRESHOLD_SD * deviation
    return (np.flatnonzero(above[1:] & ~above[:-1]) + 1) / sample_rate


def count_spikes(
    times_s: np.ndarray, start_s: float, bins: int, bin_rate_hz: float = RESPONSE_RATE
) -> Tensor:
    """Spikes in each bin; those before and after the bins are left out.

    Args:
        times_s: Spike times [s], in any order, `(S,)`.
        start_s: Where the first bin begins [s].
        bins: How many.
        bin_rate_hz: Bins a second [Hz].

    Returns:
        Counts, uint8 `(N,)`.

    Raises:
        ValueError: If a time is NaN, or there are more spikes in a bin than can be stored.

    >>> count_spikes(np.array([0.9, 1.0005, 1.0010, 1.0030]), 1.0, 4).tolist()
    [2, 0, 1, 0]
    """
    times_s = np.asarray(times_s, np.float64)
    if np.isnan(times_s).any():
        raise ValueError(f"{int(np.isnan(times_s).sum())} spike times are NaN; remove them")
    # a spike on an edge belongs to the bin that begins there, however its time was rounded
    places = np.floor((times_s - start_s) * bin_rate_hz + 1e-6)
    inside = places[(places >= 0) & (places < bins)].astype(np.int64)
    counts = np.bincount(inside, minlength=bins)
    if counts.max(initial=0) >= MISSING_COUNT:
        raise ValueError(
            f"{counts.max()} spikes in a bin of {1e3 / bin_rate_hz:.3f} ms; "
            f"at most {MISSING_COUNT - 1} can be stored, so check the unit of the times"
        )
    return torch.from_numpy(counts.astype(np.uint8))
