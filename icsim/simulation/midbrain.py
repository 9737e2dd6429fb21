"""From auditory nerve to midbrain: adaptation, modulation tuning, sidebands, counts."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from icsim.dsp import fft_convolve
from icsim.sound import RESPONSE_RATE

NERVE_RATE = 2 * RESPONSE_RATE
"""Rate at which the midbrain works [Hz]: two samples in each response bin."""

KERNEL_SAMPLES = 512
"""Memory of the midbrain [samples at `NERVE_RATE`]: 0.34 s."""

SLOWEST_HZ, FASTEST_HZ = 10.0, 200.0
"""Range of best modulation rates [Hz]. Chosen here, about what midbrain neurons cover."""

MAX_COUNT = 4
"""Counts are clipped here: classes 0, 1, 2, 3 and 4 or more. Source: arXiv 2506.03088."""

PROPERTIES = {
    # name: (centre, octaves of spread, along frequency, along modulation rate, phase)
    "threshold": (0.005, 0.8, 1.9, -1.1, 0.4),
    "sensitivity": (40.0, 0.5, 1.3, 1.7, 2.0),
    "ceiling": (4.0, 0.4, -1.5, 0.9, 1.0),
    "tuning_octaves": (0.5, 0.5, 1.1, 1.4, 0.0),
    "inhibition": (0.8, 0.1, 1.6, -1.3, 3.0),
    "sideband": (0.1, 0.5, -1.2, 1.8, 5.0),
    "latency_ms": (7.0, 0.4, -0.9, -1.2, 0.7),
    "spontaneous": (0.1, 0.9, 1.4, 1.2, 4.0),
    "dispersion": (0.35, 1.6, -1.7, 1.0, 2.5),
}
"""How a channel's properties vary over the map of frequency and modulation rate, the same in every
animal: `centre · 2^(spread · sin(a x + b y + phase))`, x and y from -1 to 1. Chosen here, so that
real speech from 40 to 90 dB SPL gives healthy animals 0.4 counts and 0.7 nats a bin (0.16 and 0.4
at 40 dB, 0.7 and 1.0 at 90 dB), and most channels a trial-to-trial correlation above 0.22."""


def channel_properties(
    cf_hz: np.ndarray, best_modulation_hz: np.ndarray, private: np.ndarray
) -> dict[str, Tensor]:
    """Everything that the place on the map decides, with a private deviation.

    Args:
        cf_hz: Characteristic frequencies [Hz], `(C,)`.
        best_modulation_hz: Best modulation rates [Hz], `(C,)`.
        private: Deviation of each property, in units of its spread over the map,
            `(len(PROPERTIES), C)`.

    Returns:
        One `(C,)` tensor for each name in `PROPERTIES`.
    """
    x = np.log(cf_hz / 2200) / math.log(16000 / 2200)
    y = 2 * np.log(best_modulation_hz / SLOWEST_HZ) / math.log(FASTEST_HZ / SLOWEST_HZ) - 1
    return {
        name: torch.from_numpy(
            centre * 2 ** (spread * (np.sin(a * x + b * y + phase) + deviation))
        ).float()
        for (name, (centre, spread, a, b, phase)), deviation in zip(
            PROPERTIES.items(), private, strict=True
        )
    }


def lay_out(
    channels: int, quartiles_hz: tuple[float, float, float], scatter: float, seed: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Where an animal's channels lie on the map, and what that makes of them.

    Args:
        channels: Number of channels C.
        quartiles_hz: Quartiles of their characteristic frequencies [Hz], between 300 Hz and 16 kHz.
        scatter: Private deviation of each property, in units of its spread over the map.
        seed: Draws places, deviations and the order of the channels.

    Returns:
        Characteristic frequencies [Hz] and best modulation rates [Hz], both `(C,)`, and the
        properties as `channel_properties` gives them.
    """
    draw = np.random.default_rng([seed, 3])
    index = np.arange(channels)
    quantile = (index + draw.random()) / channels
    # Multiples of the golden ratio cover the other axis evenly, however many channels there are.
    across = (index * (5**0.5 - 1) / 2 + draw.random()) % 1
    # Electrodes lie along the frequency axis, with scatter.
    order = np.argsort(quantile + 0.15 * draw.standard_normal(channels))
    corners = np.log([300.0, *quartiles_hz, 16000.0])
    cf_hz = np.exp(np.interp(quantile, np.linspace(0, 1, 5), corners))[order]
    slowest, fastest = SLOWEST_HZ, FASTEST_HZ
    best_modulation_hz = (slowest * (fastest / slowest) ** across)[order]
    private = scatter * draw.standard_normal((len(PROPERTIES), channels))
    properties = channel_properties(cf_hz, best_modulation_hz, private)
    return torch.from_numpy(cf_hz).float(), torch.from_numpy(best_modulation_hz).float(), properties


def tuning(cf_hz: Tensor, width_octaves: Tensor, places_hz: Tensor) -> Tensor:
    """Weights of a channel over the cochlea, Gaussian in octaves, each row adding up to 1.

    Args:
        cf_hz: `(C,)`; a channel beyond the last place listens to the last ones.
        width_octaves: Standard deviation, `(C,)`.
        places_hz: Characteristic frequencies of the cochlea [Hz], `(K,)`.

    Returns:
        `(C, K)`.
    """
    within = cf_hz.clamp(float(places_hz[0]), float(places_hz[-1]))
    octaves = torch.log2(places_hz / within[:, None]) / width_octaves[:, None]
    return torch.softmax(-octaves.square() / 2, 1)


def temporal_kernels(
    best_modulation_hz: Tensor, inhibition: Tensor, sideband: Tensor, latency_ms: Tensor
) -> tuple[Tensor, Tensor]:
    """Same-frequency excitation less delayed inhibition, and inhibition by the sidebands.

    Source: Nelson & Carney 2004 for alpha functions whose difference tunes to a modulation rate;
    the constants are chosen here.

    Returns:
        Both `(C, KERNEL_SAMPLES)` at `NERVE_RATE`.
    """
    # Measured: with these ratios the response peaks at the best modulation rate within 10 %.
    excitation_s = 0.075 / best_modulation_hz
    start_s = latency_ms / 1000
    excite = _alpha(excitation_s, start_s)
    delayed = _alpha(2 * excitation_s, start_s + excitation_s)
    return (
        excite - inhibition[:, None] * delayed,
        sideband[:, None] * _alpha(1.5 * excitation_s, start_s + 0.001),
    )


def adapt(rate: Tensor) -> Tensor:
    """What is left of a steady rate: two time constants, 10 and 100 ms, then rectification.

    Source: the time constants are those of rapid and short-term adaptation in the nerve
    (Westerman & Smith 1984, about 10 and 60-100 ms); the shares are chosen here.
    """
    time_s = torch.arange(KERNEL_SAMPLES, device=rate.device) / NERVE_RATE
    memory = 0.3 * torch.softmax(-time_s / 0.01, 0) + 0.4 * torch.softmax(-time_s / 0.1, 0)
    return (rate - fft_convolve(rate, memory)).relu()


def mix_and_convolve(rate: Tensor, *branches: tuple[Tensor, Tensor]) -> Tensor:
    """Sum over branches of (weights, kernels): `(B, K, T)` to `(B, C, T)`, causal.

    Args:
        rate: `(B, K, T)`.
        branches: Weights `(C, K)` and kernels `(C, KERNEL_SAMPLES)` of each.
    """
    size = next_fast_len(rate.shape[-1] + KERNEL_SAMPLES, real=True)
    spectrum = torch.fft.rfft(rate, size)
    total = _sum(
        torch.einsum("ck,bkf->bcf", weights.to(spectrum.dtype), spectrum)
        * torch.fft.rfft(kernels, size)
        for weights, kernels in branches
    )
    return torch.fft.irfft(total, size)[..., : rate.shape[-1]]


def count_probabilities(mean: Tensor, dispersion: Tensor) -> Tensor:
    """Negative binomial counts, clipped at `MAX_COUNT`.

    Args:
        mean: Mean count a bin before clipping, positive, `(*, N)`.
        dispersion: Variance = mean + dispersion · mean², positive, broadcastable to `mean`.

    Returns:
        Probabilities of 0, 1, 2, 3 and 4 or more, `(*, 5, N)`.

    >>> count_probabilities(torch.ones(7), torch.tensor(0.5)).sum(0).round(decimals=4)
    tensor([1., 1., 1., 1., 1., 1., 1.])
    """
    spread = 1 + dispersion * mean
    probability = torch.exp(-torch.log(spread) / dispersion)
    exact = [probability]
    for count in range(1, MAX_COUNT):
        probability = probability * mean / spread * (1 + (count - 1) * dispersion) / count
        exact.append(probability)
    return torch.stack([*exact, (1 - _sum(exact)).clamp_min(0)], -2)


def expected_count(probabilities: Tensor) -> Tensor:
    """Mean clipped count, `(*, 5, N)` to `(*, N)`."""
    return _sum(count * probabilities[..., count, :] for count in range(1, MAX_COUNT + 1))


def draw_counts(probabilities: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Counts of one trial, uint8, `(*, 5, N)` to `(*, N)`."""
    cumulative = probabilities[..., :-1, :].cumsum(-2)
    shape = cumulative[..., :1, :].shape
    uniform = torch.rand(shape, generator=generator, device=cumulative.device)
    return (uniform > cumulative).sum(-2).to(torch.uint8)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return sum(parts, start=torch.zeros(()))


def _alpha(tau_s: Tensor, delay_s: Tensor) -> Tensor:
    """Alpha functions of unit area, `(C, KERNEL_SAMPLES)`, zero before their delay."""
    time_s = (torch.arange(KERNEL_SAMPLES, device=tau_s.device) + 0.5) / NERVE_RATE
    since = (time_s - delay_s[:, None]).relu() / tau_s[:, None]
    alpha = since * torch.exp(-since)
    return alpha / alpha.sum(-1, keepdim=True)
