"""From sound to auditory nerve: what every simulated ear shares, and what its loss changes.

The linear filtering depends on the sound alone: `filter_sound` does it once, and every ear then
hears the same `Subbands` through its own outer and inner hair cells and nerve fibres.
"""

import dataclasses
import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from icsim.dsp import erb_hz, erb_space, gammatone_response
from icsim.sound import BIN_SAMPLES, REFERENCE_PA, SAMPLE_RATE

SUBBAND_RATE = SAMPLE_RATE / 8
"""Rate of `Subbands` [Hz]: four samples in each response bin."""

BROADENING = 2.5
"""Bandwidth of a passive cochlear filter over that of an active one. Chosen here."""

MAX_GAIN_DB = 55.0
"""Gain of healthy outer hair cells at low levels [dB]. Chosen here, within the 50-60 dB usual at
the base of a healthy cochlea."""

FULL_GAIN_DB_SPL, NO_GAIN_DB_SPL = 20.0, 100.0
"""The levels between which the outer hair cells' gain falls from all to nothing. Chosen here."""

LOCKING_HZ = 1200.0
"""Corner of the hair cell's low-pass; above it only the envelope passes. Chosen here."""

HIGH_HALF_DB = 79.0
"""Drive at which fibres of high spontaneous rate reach half their rate [dB re 20 uPa behind the
amplifier: some 30 dB SPL in a healthy ear]. Chosen here."""

LOW_THRESHOLD_DB = 77.0
"""Drive at which fibres of low spontaneous rate begin to respond [the same dB: 28 dB SPL in a
healthy ear, where the others have reached a third of their rate]. Chosen here."""

LOW_SHARE = 0.7
"""Share of the fibres of low and medium spontaneous rate in the nerve's largest rate. Chosen
here."""


@dataclasses.dataclass(frozen=True)
class Subbands:
    """A sound behind the linear cochlea: K places, M = 4 N samples at `SUBBAND_RATE`.

    A place's output is `broad + gain · sharp`, of which only the power and, at low frequencies,
    the fine structure matter, so these are what is kept.
    """

    control: Tensor
    """Share of the outer hair cells' gain that the level leaves, 0 to 1, `(B, K, M)`."""
    broad: Tensor
    """Power of the passive path [Pa²], `(B, K, M)`."""
    sharp: Tensor
    """Power of the active path before its gain [Pa²], `(B, K, M)`."""
    cross: Tensor
    """Real part of the product of the two [Pa²], `(B, K, M)`."""
    fine_broad: Tensor
    """Fine structure of the passive path, low-passed by the hair cell [Pa], `(B, K', M)`: the
    first K' places."""
    fine_sharp: Tensor
    """Fine structure of the active path [Pa], `(B, K', M)`."""


def bandwidth(cf_hz: float) -> float:
    """Parameter b of a fourth-order gammatone [Hz] whose bandwidth is a gerbil's.

    Source: 1.019 · `icsim.dsp.erb_hz`, Glasberg & Moore 1990, for people; gerbils'
    filters are wider, by a factor of 1.5 (chosen here).
    """
    return 1.5 * 1.019 * erb_hz(cf_hz)


def cochlear_places(count: int = 56, low_hz: float = 250.0, high_hz: float = 11000.0) -> Tensor:
    """Characteristic frequencies [Hz] of the cochlea, evenly spaced in bandwidths, `(count,)`.

    >>> cochlear_places(3).round()
    tensor([  250.,  2090., 11000.])
    """
    return torch.from_numpy(erb_space(low_hz, high_hz, count, corner_hz=228.8)).float()


def gain_control(level_db_spl: Tensor) -> Tensor:
    """Share of the outer hair cells' gain at a level: 1 when soft, 1/2 at 60, 0 at 100 dB SPL.

    >>> gain_control(torch.tensor([0.0, 60.0, 120.0])).round(decimals=2)
    tensor([1.0000, 0.5000, 0.0000])
    """
    fall = (NO_GAIN_DB_SPL - level_db_spl) / (NO_GAIN_DB_SPL - FULL_GAIN_DB_SPL)
    return (functional.softplus(20 * fall) - functional.softplus(20 * fall - 20)) / 20


def filter_sound(
    sound: Tensor, places_hz: Tensor | None = None, rate_hz: float = SAMPLE_RATE
) -> Subbands:
    """Everything in the cochlea that no loss changes: ear, gammatone filters, level.

    Args:
        sound: Pressure [Pa], `(B, T)`.
        places_hz: Ascending characteristic frequencies [Hz], `(K,)`; default `cochlear_places()`.
        rate_hz: Sample rate [Hz], a power of two times `SAMPLE_RATE`.

    Returns:
        The sound's subbands, M = 4 N with N = T // 32 response bins at the default rate.

    Raises:
        ValueError: If the sound is not `(B, T)` or shorter than a bin, or the rate cannot be used.
    """
    octaves = math.log2(rate_hz / SAMPLE_RATE)
    if octaves < 0 or octaves != int(octaves):
        raise ValueError(f"{rate_hz} Hz is no power of two times {SAMPLE_RATE} Hz; resample")
    bin_samples = BIN_SAMPLES << int(octaves)
    if sound.ndim != 2 or sound.shape[-1] < bin_samples:
        raise ValueError(f"sound {tuple(sound.shape)} is not (B, T) with T >= {bin_samples}")
    places_hz = cochlear_places() if places_hz is None else places_hz
    samples = sound.shape[-1] // bin_samples * bin_samples
    # A tenth of a second of silence takes up the longest ringing, so nothing wraps around.
    size = bin_samples * next_fast_len(samples // bin_samples + 77)
    spectrum = torch.fft.fft(sound[:, :samples], size)
    spectrum = spectrum * _ear(torch.fft.fftfreq(size, 1 / rate_hz, device=sound.device))
    places = [_place(spectrum, cf, rate_hz, samples) for cf in places_hz.tolist()]
    broad, sharp, cross = (torch.stack([place[i] for place in places], 1) for i in range(3))
    locked = [place[3:] for place in places if len(place) > 3]
    fine = [torch.stack(part, 1) for part in zip(*locked, strict=True)] or [broad[:, :0]] * 2
    level = 10 * torch.log10(_smooth(broad) / (2 * REFERENCE_PA**2) + 0.01)
    return Subbands(gain_control(level), broad, sharp, cross, *fine)


def drive(subbands: Subbands, gain_db: Tensor, ihc_db: Tensor) -> Tensor:
    """Rectified output of the inner hair cells.

    Args:
        subbands: From `filter_sound`.
        gain_db: What gain the outer hair cells have left at low levels [dB], `(B or 1, K)`.
        ihc_db: Attenuation by loss of inner hair cells [dB], `(K,)`.

    Returns:
        Drive, 1 at 0 dB re 20 µPa RMS, `(B, K, M)`.
    """
    active = torch.exp(math.log(10) / 20 * gain_db[..., None] * subbands.control) - 1
    power = subbands.broad + active * (2 * subbands.cross + active * subbands.sharp)
    rectified = (power.clamp_min(0) + 1e-10).sqrt() / math.pi
    low = subbands.fine_broad.shape[1]
    if low:
        fine = subbands.fine_broad + active[:, :low] * subbands.fine_sharp
        rectified = torch.cat([(rectified[:, :low] + fine).relu(), rectified[:, low:]], 1)
    return rectified * (math.pi / 2**0.5 / REFERENCE_PA * 10 ** (-ihc_db / 20))[:, None]


def high_spontaneous(drive: Tensor) -> Tensor:
    """Rate of the nerve fibres that set the threshold, 0 to 1, any shape."""
    scaled = drive * 10 ** (-HIGH_HALF_DB / 20)
    steep = scaled * (scaled + 1e-6).sqrt()
    return steep / (1 + steep)


def low_spontaneous(drive: Tensor) -> Tensor:
    """Rate of the nerve fibres that speak only well above threshold, 0 to 1, any shape."""
    above = (drive * 10 ** (-LOW_THRESHOLD_DB / 20) - 1).relu()
    return above / (2 + above)


def nerve(drive: Tensor, synaptopathy: float) -> Tensor:
    """Rate of the whole nerve, of which fibres of low spontaneous rate are lost first.

    Source: Furman, Kujawa & Liberman 2013 (selective loss, thresholds unchanged); the functions
    are chosen here.

    Args:
        drive: From `drive`, `(*, M)`.
        synaptopathy: Fraction of the fibres of low spontaneous rate that is lost.

    Returns:
        Rate at half of `SUBBAND_RATE`, `(*, M/2)`, about 0 to 1.
    """
    low = (1 - synaptopathy) * low_spontaneous(drive)
    rate = (1 - LOW_SHARE) * high_spontaneous(drive) + LOW_SHARE * low
    return rate.unflatten(-1, (-1, 2)).mean(-1)


def _ear(frequency_hz: Tensor) -> Tensor:
    """Outer and middle ear: a high-pass at 400 Hz, and a low-pass just below half the rate."""
    high_pass = 1 / (1 + 400 / (1j * frequency_hz + 1e-3))
    edge = frequency_hz.abs() / frequency_hz.abs().max()
    return high_pass * torch.cos(math.pi / 2 * ((edge - 0.92) / 0.08).clamp(0, 1)) ** 2


def _place(spectrum: Tensor, cf_hz: float, rate_hz: float, samples: int) -> tuple[Tensor, ...]:
    """Powers of both paths, their product and fine structures at one place, each `(B, M)`."""
    size = spectrum.shape[-1]
    width = bandwidth(cf_hz)
    wide = BROADENING * width > 700
    size_out = size // round(rate_hz / SAMPLE_RATE * (2 if wide else 4))
    centre = round(cf_hz * size / rate_hz)
    offset = torch.fft.fftfreq(size_out, 1 / size_out, device=spectrum.device).round()
    index = centre + offset.long()
    taper = torch.cos(math.pi / 2 * (4 * offset.abs() / size_out - 1).clamp(0, 1)) ** 2
    bins = spectrum[:, index % size] * (taper * (index < size / 2) * (2 * size_out / size))
    away = index * (rate_hz / size) - cf_hz

    def path(width_hz: float) -> Tensor:
        response = gammatone_response(away, width_hz)
        return torch.fft.ifft(bins * response)[:, : samples * size_out // size]

    def average(signal: Tensor) -> Tensor:
        return signal.unflatten(-1, (-1, round(size_out * rate_hz / size / SUBBAND_RATE))).mean(-1)

    broad, sharp = path(BROADENING * width), path(width)
    powers = [_power(broad), _power(sharp), broad.real * sharp.real + broad.imag * sharp.imag]
    if cf_hz > 1.25 * LOCKING_HZ:
        return tuple(average(power) for power in powers)
    locking = 0.5 / (1 + (cf_hz / LOCKING_HZ) ** 2)
    cycles = (
        torch.arange(broad.shape[-1], device=away.device, dtype=torch.float64) * centre / size_out
    )
    carrier = torch.polar(torch.full_like(cycles, locking), 2 * math.pi * cycles.remainder(1))
    carrier = carrier.to(broad.dtype)
    return tuple(map(average, [*powers, (broad * carrier).real, (sharp * carrier).real]))


def _power(signal: Tensor) -> Tensor:
    return signal.real.square() + signal.imag.square()


def _smooth(power: Tensor) -> Tensor:
    """Exponential average over 1 ms, causal and never negative, `(B, K, M)`."""
    steps = torch.arange(15, -1, -1, dtype=power.dtype, device=power.device)
    kernel = torch.exp(-1000 / SUBBAND_RATE * steps)
    flat = functional.pad(power.flatten(0, 1).unsqueeze(1), (15, 0))
    return functional.conv1d(flat, (kernel / kernel.sum())[None, None]).view_as(power)
