"""Signal processing that models of hearing share: frequency scales, gammatone filters, convolution.

Sources give the constants of one and the same scale with more or fewer digits; they are parameters
here, with those of the first source named as defaults. What designs a filter works in NumPy and in
double precision, as `scipy.signal` does; what sounds pass through works in PyTorch. Filters with
feedback, compiled, are in `icsim.recursive_filters`.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.signal import sosfilt
from torch import Tensor

ERB_LEAST_HZ = 24.7
"""Equivalent rectangular bandwidth of the lowest auditory filter [Hz], as `erb_hz`."""

ERB_CORNER_HZ = 1000 / 4.37
"""Where a bandwidth is twice `ERB_LEAST_HZ` [Hz]: below it bandwidths are nearly constant, above it
nearly proportional to frequency. Source: Glasberg & Moore 1990, Hear. Res. 47:103-138."""

NEGLIGIBLE = 1e-10
"""What is cut off an impulse response is below so much of its peak (chosen here)."""

LONGEST_S = 0.3
"""No impulse response is longer [s]: a gammatone filter at 80 Hz has died away in 0.2 s."""


# Frequency scales --------------------------------------------------------------------------------


def erb_hz(centre_hz, quality: float = ERB_CORNER_HZ / ERB_LEAST_HZ):
    """Equivalent rectangular bandwidth of a human auditory filter, `24.7 + centre / quality`.

    Args:
        centre_hz: Centre frequencies [Hz]: a number, an array or a tensor.
        quality: Centre frequency over bandwidth of filters at high frequencies.

    Returns:
        Bandwidths [Hz], as what came in.

    Source: Glasberg & Moore 1990, 24.7 (4.37 f/kHz + 1).

    >>> round(erb_hz(1000.0), 1)
    132.6
    """
    return ERB_LEAST_HZ + centre_hz / quality


def erb_number(hz: Tensor, per_decade: float = 21.4) -> Tensor:
    """Position on the cochlea in equivalent rectangular bandwidths (the ERB-number scale).

    Args:
        hz: Frequencies [Hz], any shape.
        per_decade: Bandwidths in a decade of high frequencies. The 21.4 of the source is rounded;
            integrating its bandwidths gives 21.33.

    Source: Glasberg & Moore 1990.

    >>> erb_number(torch.tensor([100.0, 1000.0])).round(decimals=2)
    tensor([ 3.3700, 15.6200])
    """
    return per_decade * torch.log10(1 + 0.00437 * hz)


def erb_number_to_hz(number: Tensor, per_decade: float = 21.4) -> Tensor:
    """Frequencies [Hz] of positions, the inverse of `erb_number`."""
    return (10 ** (number / per_decade) - 1) / 0.00437


def erb_space(
    low_hz: float, high_hz: float, count: int, corner_hz: float = ERB_CORNER_HZ
) -> np.ndarray:
    """Centre frequencies that are evenly spaced on the ERB-number scale, ends included.

    Args:
        low_hz: The first [Hz].
        high_hz: The last [Hz].
        count: How many.
        corner_hz: As `ERB_CORNER_HZ`.

    Returns:
        Ascending frequencies [Hz], `(count,)`.

    >>> erb_space(250, 11000, 3).round().tolist()
    [250.0, 2090.0, 11000.0]
    """
    return np.geomspace(low_hz + corner_hz, high_hz + corner_hz, count) - corner_hz


def mel(hz: Tensor) -> Tensor:
    """Pitch of a pure tone [mel].

    Source: O'Shaughnessy 1987; the scale of HTK.

    >>> mel(torch.tensor([1000.0])).round()
    tensor([1000.])
    """
    return 2595 * torch.log10(1 + hz / 700)


def mel_to_hz(pitch: Tensor) -> Tensor:
    """Frequencies [Hz] of pitches [mel], the inverse of `mel`."""
    return 700 * (10 ** (pitch / 2595) - 1)


# Gammatone filters -------------------------------------------------------------------------------


def gammatone_bandwidth(erb_hz: np.ndarray, order: int = 4) -> np.ndarray:
    """Parameter `b` of gammatone filters whose equivalent rectangular bandwidth is given [Hz].

    A gammatone filter is `t^(order − 1) exp(−2π b t) cos(2π centre t)`. For order 4, b is 1.0186
    times the bandwidth; many programs have 1.019.

    Source: Holdsworth et al. 1988, annex C of the SVOS final report.

    >>> round(gammatone_bandwidth(1.0), 4)
    1.0186
    """
    squared = math.factorial(order - 1) ** 2
    return squared * 4 ** (order - 1) / (math.factorial(2 * order - 2) * np.pi) * erb_hz


def gammatone_response(away_hz: Tensor, bandwidth_hz: float) -> Tensor:
    """Frequency response of a gammatone filter of order 4, `(1 + i away / b)⁻⁴`, 1 at its centre.

    Args:
        away_hz: Frequency less the filter's centre frequency [Hz], any shape.
        bandwidth_hz: b, as `gammatone_bandwidth`.

    Returns:
        Complex; the response to positive frequencies, so that the output is the analytic signal.
    """
    two_poles = 1 / torch.complex(torch.ones_like(away_hz), away_hz / bandwidth_hz).square()
    return two_poles.square()


def gammatone_section(
    centre_hz: np.ndarray, bandwidth_hz: np.ndarray, sample_rate_hz: float, zero: bool = False
) -> np.ndarray:
    """One of the equal second-order sections whose cascade is a gammatone filter.

    The gain at the centre frequency is 1.

    Args:
        centre_hz: `(C,)`.
        bandwidth_hz: b of each, `(C,)`.
        sample_rate_hz: [Hz].
        zero: Whether a section has a zero at the real part of its poles, as gammatone filters of
            the Auditory Modeling Toolbox have, or none (an all-pole gammatone filter).

    Returns:
        Coefficients in scipy's order, `(C, 6)`.

    Source: Lyon 1997 for the all-pole filter.
    """
    pole = np.exp(2 * np.pi * (-bandwidth_hz + 1j * centre_hz) / sample_rate_hz)
    delay = np.exp(-2j * np.pi * centre_hz / sample_rate_hz)
    numerator = np.stack([np.ones_like(centre_hz), -pole.real * zero, 0 * centre_hz], axis=1)
    denominator = np.stack([np.ones_like(centre_hz), -2 * pole.real, np.abs(pole) ** 2], axis=1)
    powers = delay[:, None] ** np.arange(3)
    gain = np.abs((denominator * powers).sum(1) / (numerator * powers).sum(1))
    return np.concatenate([gain[:, None] * numerator, denominator], axis=1)


def impulse_response(
    sections: Sequence[np.ndarray],
    sample_rate_hz: float,
    drive: np.ndarray | None = None,
) -> np.ndarray:
    """Taps of filters with feedback, until they have died away, so that convolution replaces them.

    Args:
        sections: Second-order sections in cascade, each `(C, 6)` in scipy's order.
        sample_rate_hz: [Hz].
        drive: What enters in place of the impulse, `(L',)`.

    Returns:
        `(C, L)`; what is cut off is below `NEGLIGIBLE` of each channel's peak.
    """
    start = np.pad(np.ones(1) if drive is None else drive, (0, round(LONGEST_S * sample_rate_hz)))
    taps = np.stack([sosfilt(channel, start) for channel in np.stack(sections, axis=1)])
    matters = np.abs(taps) > NEGLIGIBLE * np.abs(taps).max(-1, keepdims=True)
    return taps[:, : matters.any(0).nonzero()[0][-1] + 1]


# Convolution -------------------------------------------------------------------------------------


def fft_convolve(sound: Tensor, taps: Tensor, advance: int = 0) -> Tensor:
    """Causal convolution along the last axis by the Fourier transform; gradients reach both.

    Args:
        sound: `(*, T)`.
        taps: `(*, L)`, of a shape that broadcasts with the sound's.
        advance: Samples by which the output is moved ahead, at most L − 1: half of L − 1 takes away
            the delay of symmetric taps. With any but 0 it depends on the future.

    Returns:
        `(*, T)`.

    >>> taps = torch.tensor([0.5, 0.25])
    >>> fft_convolve(torch.tensor([1.0, 0, 0, 2]), taps).round(decimals=5).abs()
    tensor([0.5000, 0.2500, 0.0000, 1.0000])
    """
    samples = sound.shape[-1]
    size = next_fast_len(samples + taps.shape[-1] - 1, real=True)
    spectra = torch.fft.rfft(sound, size) * torch.fft.rfft(taps, size)
    return torch.fft.irfft(spectra, size)[..., advance : advance + samples]


def fir_from_gains(places: np.ndarray, gains: np.ndarray, order: int, grid: int) -> np.ndarray:
    """Linear-phase filter by the window method, as Matlab's `fir2` designs it.

    Args:
        places: Where the gain is given, ascending from 0 to 1, half the sample rate, `(K,)`.
        gains: Linear, straight lines between them, `(K,)`.
        order: Of the filter; its delay is half of it [samples].
        grid: Frequencies that the response is sampled at, more than order / 2.

    Returns:
        Symmetric taps, `(order + 1,)`.
    """
    # Each line begins one place of the grid after the last one's end.
    edges = np.floor(places * grid)
    first, last = edges[:-1], np.maximum(edges[1:] - 1, edges[:-1])
    on_grid = np.arange(grid)
    magnitude = np.interp(
        on_grid,
        np.stack([first, last], axis=1).ravel(),
        np.stack([gains[:-1], gains[1:]], axis=1).ravel(),
    )
    delay = np.exp(-0.5j * np.pi * order * on_grid / (grid - 1))
    return np.fft.irfft(magnitude * delay)[: order + 1] * np.hamming(order + 1)
