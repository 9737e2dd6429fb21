"""A human ear that gradients pass through: from sound to inner hair cells, by the audiogram alone.

`AuditoryModel` stands where the midbrain stands in `ResponseLoss`, and so in every objective:

>>> from icsim.loss import ResponseLoss
>>> loss = ResponseLoss(AuditoryModel(), squared_difference)
>>> normal = torch.zeros(1, len(AUDIOGRAM_HZ))
>>> loss.respond(torch.zeros(2, 3200), normal).shape  # sounds, channels, samples of a bin, bins
torch.Size([2, 31, 32, 100])

Source: Gonzalez, Dau & May 2025 (arXiv 2507.09372), whose program this agrees with.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from scipy.signal import butter
from torch import Tensor, nn

from icsim.dsp import (
    erb_hz,
    erb_number,
    erb_number_to_hz,
    erb_space,
    fft_convolve,
    fir_from_gains,
    gammatone_bandwidth,
    gammatone_section,
    impulse_response,
)
from icsim.sound import BIN_SAMPLES, REFERENCE_PA, SAMPLE_RATE

from .listener import AUDIOGRAM_HZ, SPAN_DB

LOWEST_HZ, HIGHEST_HZ = 80.0, 8000.0
"""Between these lie the channels [Hz]. Source: arXiv 2507.09372."""

FAINTEST = 1e-5
"""Output of the hair cells below which the logarithm is linear. Source: arXiv 2507.09372."""

HAIR_CELL_HZ = 1000.0
"""Corner of the hair cells' low-pass [Hz]. Source: arXiv 2507.09372."""

EXPONENT = 0.25
"""Growth of the compressed path with the sound. Source: Lopez-Poveda & Meddis 2001."""

PASCAL = 10 ** ((93.98 - 100) / 20)
"""A pascal in the filterbank's unit, in which 100 dB SPL is 1.

Source: Auditory Modeling Toolbox, `lopezpoveda2001`.
"""

LOWEST_RATE = 16_100.0
"""Sample rate that the uppermost channel needs [Hz]: its low-pass lies at 8.03 kHz."""

OUTER_SHARE, LARGEST_SHIFT_DB = 2 / 3, 105.0
"""Part of a shift that outer hair cells cause, and the largest shift [dB].

Source: arXiv 2507.09372.
"""

LARGEST_OUTER_DB = {
    250: 18.591860,
    375: 23.065377,
    500: 25.260261,
    750: 30.701329,
    1000: 34.027267,
    1500: 38.675266,
    2000: 39.531884,
    3000: 39.493013,
    4000: 39.315636,
    6000: 40.521054,
}
"""All that outer hair cells can lose [dB] at frequencies [Hz]. Source: arXiv 2507.09372."""

STAPES_UM = {
    400: 0.19953,
    600: 0.22909,
    800: 0.21878,
    1000: 0.15136,
    1200: 0.10000,
    1400: 0.07943,
    1600: 0.05754,
    1800: 0.04365,
    2000: 0.03311,
    2200: 0.02754,
    2400: 0.02188,
    2600: 0.01820,
    2800: 0.01445,
    3000: 0.01259,
    3500: 0.00900,
    4000: 0.00700,
    4500: 0.00457,
    5000: 0.00500,
    5500: 0.00400,
    6000: 0.00300,
    6500: 0.00275,
}
"""Displacement of the stapes at 104 dB SPL [µm] at frequencies [Hz]. Source: Goode et al. 1994."""

STAPES_M_S = {
    100: 1.181e-9,
    200: 2.363e-9,
    7000: 8.705e-10,
    7500: 8.000e-10,
    8000: 7.577e-10,
    8500: 7.168e-10,
    9000: 6.781e-10,
    9500: 6.240e-10,
    10000: 6.000e-10,
}
"""Where nothing was measured: peak velocity of the stapes at 0 dB SPL [m/s] at frequencies [Hz].

Source: Lopez-Poveda & Meddis 2001, figure 2b, as in the Auditory Modeling Toolbox.
"""


@dataclasses.dataclass(frozen=True)
class HairCellLoss:
    """What is left of the hair cells, 0 to 1, where 1 is normal."""

    outer: Tensor
    """Gain of the compressed path, `(B, C)` or `(1, C)`."""
    inner: Tensor
    """Output of the inner hair cells, `(B, C)` or `(1, C)`."""


class DRNL(nn.Module):
    """Middle ear and dual-resonance non-linear filterbank, channels one ERB apart.

    In every channel a linear path, broad and weak, adds to a path that is sharp and compressed.

    Args:
        sample_rate: Of the sound [Hz], `LOWEST_RATE` or more.

    Source: Lopez-Poveda & Meddis 2001, J. Acoust. Soc. Am. 110:3107-3118: human parameters, as
    the Auditory Modeling Toolbox's `lopezpoveda2001` has them.
    """

    cf_hz: Tensor
    linear: Tensor
    before: Tensor
    after: Tensor
    amplification: Tensor
    ceiling: Tensor

    def __init__(self, sample_rate: float):
        super().__init__()
        cf = _one_erb_apart(LOWEST_HZ, HIGHEST_HZ)
        ringing = functools.partial(impulse_response, sample_rate_hz=sample_rate)

        def fitted(offset: float, slope: float) -> np.ndarray:
            return 10**offset * cf**slope

        linear_hz = fitted(-0.06762, 1.01679)
        linear = gammatone_section(linear_hz, fitted(0.03728, 0.78563), sample_rate, zero=True)
        sharp_hz = fitted(-0.05252, 1.01650)
        sharp = gammatone_section(sharp_hz, fitted(-0.03193, 0.77426), sample_rate, zero=True)
        ear = PASCAL * _middle_ear(sample_rate)
        gain = fitted(4.20405, -0.47909)[:, None]
        smooth = _lowpass(linear_hz, sample_rate)
        self.register_buffer("cf_hz", _buffer(cf), persistent=False)
        for name, taps in {
            "linear": gain * ringing([linear] * 2 + [smooth] * 4, drive=ear),
            "before": ringing([sharp] * 3, drive=ear),
            "after": ringing([sharp] * 3 + [_lowpass(sharp_hz, sample_rate)] * 3),
            "amplification": fitted(1.40298, 0.81916)[:, None],
            "ceiling": fitted(1.61912, -0.81867)[:, None],
        }.items():
            self.register_buffer(name, _buffer(taps), persistent=False)

    def forward(self, sound: Tensor, outer: Tensor) -> Tensor:
        """Vibration of the basilar membrane.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            outer: What is left of the outer hair cells, `(B, C)` or `(1, C)`.

        Returns:
            Velocity [m/s], `(B, C, T)`.
        """
        sound = sound.unsqueeze(1)
        x = fft_convolve(sound, self.before)
        # sign(x) · min(a |x|, b |x|^c) with the gradient a at silence: the knee is where they meet.
        knee = (self.ceiling / (self.amplification * outer.unsqueeze(-1))) ** (1 / (1 - EXPONENT))
        compressed = self.ceiling * x * x.abs().clamp(min=knee) ** (EXPONENT - 1)
        return fft_convolve(sound, self.linear) + fft_convolve(compressed, self.after)


class Gammatone(nn.Module):
    """Linear gammatone filterbank, 30 channels evenly spaced in ERBs; all-pole, of order 4.

    Without a compressed path, lost outer hair cells attenuate.

    Args:
        sample_rate: Of the sound [Hz], `LOWEST_RATE` or more.

    Source: arXiv 2507.09372; bandwidths of Holdsworth et al. 1988.
    """

    cf_hz: Tensor
    taps: Tensor

    def __init__(self, sample_rate: float):
        super().__init__()
        cf = erb_space(LOWEST_HZ, HIGHEST_HZ, 30)
        bandwidth = gammatone_bandwidth(erb_hz(cf, quality=9.265))
        stage = gammatone_section(cf, bandwidth, sample_rate)
        self.register_buffer("cf_hz", _buffer(cf), persistent=False)
        self.register_buffer(
            "taps", _buffer(impulse_response([stage] * 4, sample_rate)), persistent=False
        )

    def forward(self, sound: Tensor, outer: Tensor) -> Tensor:
        """As `DRNL.forward`, in pascals."""
        return fft_convolve(sound.unsqueeze(1), self.taps) * outer.unsqueeze(-1)


class AuditoryModel(nn.Module):
    """Filterbank, inner hair cells, logarithm. Nothing in it is learned.

    Filters are made in torch's default precision.

    Args:
        filterbank: `drnl`, or `gammatone` for its linear stand-in.
        sample_rate: Of the sounds [Hz], `LOWEST_RATE` or more.

    Raises:
        ValueError: If there is no such filterbank, or the sample rate is too low for 8 kHz.
    """

    membrane: Tensor
    largest_outer_db: Tensor
    reading: Tensor

    def __init__(self, filterbank: str = "drnl", sample_rate: float = SAMPLE_RATE):
        super().__init__()
        banks: dict[str, type[DRNL] | type[Gammatone]] = {"drnl": DRNL, "gammatone": Gammatone}
        if filterbank not in banks:
            raise ValueError(f"filterbank must be one of {list(banks)}, got {filterbank!r}")
        if sample_rate < LOWEST_RATE:
            raise ValueError(
                f"the channels reach {HIGHEST_HZ:g} Hz, which {sample_rate:g} Hz cannot carry; "
                f"resample to {LOWEST_RATE:g} Hz or more"
            )
        self.filterbank = banks[filterbank](sample_rate)
        membrane = impulse_response([_lowpass(np.array([HAIR_CELL_HZ]), sample_rate)], sample_rate)
        cf = self.cf_hz.double().numpy()
        largest = _interpolation([*LARGEST_OUTER_DB], cf) @ np.array([*LARGEST_OUTER_DB.values()])
        # An audiogram stays what it is beyond its ends, the largest loss goes on straight.
        reading = _interpolation(AUDIOGRAM_HZ, cf.clip(AUDIOGRAM_HZ[0], AUDIOGRAM_HZ[-1]))
        self.register_buffer("membrane", _buffer(membrane), persistent=False)
        self.register_buffer("largest_outer_db", _buffer(largest), persistent=False)
        self.register_buffer("reading", _buffer(reading), persistent=False)

    @property
    def cf_hz(self) -> Tensor:
        """Characteristic frequencies [Hz], `(C,)`."""
        return self.filterbank.cf_hz

    def hair_cell_loss(self, thresholds_db_hl: Tensor) -> HairCellLoss:
        """Divide a loss between outer and inner hair cells.

        Args:
            thresholds_db_hl: At `cf_hz` [dB HL], `(B, C)`, for instance `Audiogram.at(cf_hz)`.
        """
        shift = thresholds_db_hl.clamp(0, LARGEST_SHIFT_DB)
        outer = torch.minimum(OUTER_SHARE * shift, self.largest_outer_db)
        return HairCellLoss(10 ** (-outer / 20), 10 ** (-(shift - outer) / 20))

    def representation(self, sound: Tensor, loss: HairCellLoss) -> Tensor:
        """What the inner hair cells report, on a logarithmic scale.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            loss: Of each listener, `(B, C)`, or of one for all, `(1, C)`.

        Returns:
            0 at silence, `(B, C, T)`.

        Raises:
            ValueError: If there is not one listener for each sound, or one for all.
        """
        if sound.ndim != 2 or len(loss.outer) not in (1, len(sound)):
            raise ValueError(
                f"sound must be (B, T) and the loss (B, C) or (1, C), got {tuple(sound.shape)} "
                f"and {tuple(loss.outer.shape)}"
            )
        current = fft_convolve(self.filterbank(sound, loss.outer).relu(), self.membrane).relu()
        return torch.log1p(current * loss.inner.unsqueeze(-1) / FAINTEST)

    def respond(self, sound: Tensor, listener: Tensor) -> Tensor:
        """The representation in the bins of a midbrain's response, as `ResponseLoss` takes it.

        Args:
            sound: Pressure [Pa], `(B, T)`.
            listener: Audiograms as `listener.from_audiogram` scales them, `(B, F)` or `(1, F)`;
                zeros for normal hearing.

        Returns:
            `(B, C, 32, N)`; a remainder shorter than a bin is left out.

        Raises:
            ValueError: If a listener is not told by such an audiogram, or there is no whole bin.
        """
        if listener.shape[-1] != len(AUDIOGRAM_HZ):
            raise ValueError(
                f"listener must be (B, {len(AUDIOGRAM_HZ)}), thresholds from "
                f"listener.from_audiogram, got {tuple(listener.shape)}"
            )
        bins = sound.shape[-1] // BIN_SAMPLES
        if bins == 0:
            raise ValueError(f"{sound.shape[-1]} samples are no bin; give {BIN_SAMPLES} or more")
        thresholds = SPAN_DB * listener @ self.reading.to(listener).T
        response = self.representation(sound, self.hair_cell_loss(thresholds))
        return response[..., : bins * BIN_SAMPLES].unflatten(-1, (bins, BIN_SAMPLES)).mT


def squared_difference(response: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of representations, a `Distance` of `ResponseLoss`.

    Args:
        response: From `AuditoryModel.respond`, `(B, C, 32, N)`.
        target: The same of the response wanted.
        weight: Of each channel, with a mean of one, `(C,)`.

    Returns:
        `(B,)`.
    """
    by_channel = (response - target).square().mean((-2, -1))
    return by_channel.mean(-1) if weight is None else (by_channel * weight).mean(-1)


def _lowpass(corner_hz: np.ndarray, sample_rate: float) -> np.ndarray:
    """Butterworth low-passes of order 2, `(C, 6)`."""
    return np.concatenate([butter(2, hz, fs=sample_rate, output="sos") for hz in corner_hz])


def _middle_ear(sample_rate: float) -> np.ndarray:
    """Minimum-phase filter from pressure to the velocity of the stapes, `(513,)`.

    Source: Auditory Modeling Toolbox, `middleearfilter`: a windowed design on 513 frequencies.
    """
    measured = {
        hz: um * 1e-6 * 2 * np.pi * hz * 10 ** (-104 / 20) * 2**0.5 for hz, um in STAPES_UM.items()
    }
    table = {hz: v for hz, v in sorted({**STAPES_M_S, **measured}.items()) if hz < sample_rate / 2}
    hz, velocity = np.array(list(table)), np.array(list(table.values()))
    beyond = velocity[-1] / (1 + (sample_rate / 2 - hz[-1]) / 10_000)
    count = 513
    places = np.array([0, *hz, sample_rate / 2]) * 2 / sample_rate
    velocity = np.array([0, *velocity, beyond])
    taps = fir_from_gains(places, velocity, order=count - 1, grid=count) / REFERENCE_PA
    cepstrum = np.fft.ifft(np.log(np.abs(np.fft.fft(taps)))).real
    cepstrum[1 : count // 2 + 1] *= 2
    cepstrum[count // 2 + 1 :] = 0
    return np.fft.ifft(np.exp(np.fft.fft(cepstrum))).real


def _interpolation(known_hz: Sequence[float], wanted_hz: np.ndarray) -> np.ndarray:
    """Matrix `(K, F)` that interpolates on log frequency, and goes on straight beyond the ends."""
    each = np.eye(len(known_hz))
    return make_interp_spline(np.log(known_hz), each, k=1)(np.log(wanted_hz))


def _one_erb_apart(low_hz: float, high_hz: float) -> np.ndarray:
    """As many frequencies as fit, in the middle between the two."""
    per_decade = 9.2645 * math.log(10)  # as in the Auditory Modeling Toolbox
    ends = torch.tensor([low_hz, high_hz], dtype=torch.float64)
    low, high = erb_number(ends, per_decade).tolist()
    count = int(high - low) + 1
    margin = (high - low - (count - 1)) / 2
    numbers = low + margin + torch.arange(count, dtype=torch.float64)
    return erb_number_to_hz(numbers, per_decade).numpy()


def _buffer(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values, dtype=torch.get_default_dtype())
