"""The ear behind HASPI and HASQI, which gradients pass through: from sound to auditory nerve.

Middle ear, gammatone filters as wide as the level demands, compression by outer hair cells,
alignment with the reference, sensation level at the inner hair cells, their adaptation, and one
delay for all bands. Everything is in double precision at 24 kHz, on 32 bands. Lags, found by
cross-correlation, are constants to gradients.

Source of every constant without another one: Kates & Arehart 2014, JAES 62:99-117 and 2021,
Speech Commun. 131:35-46, as implemented by pyclarity 0.9.0, with which this agrees.
"""

import dataclasses
import functools
import math

import numpy as np
import torch
from scipy.fft import next_fast_len
from scipy.signal import butter
from torch import Tensor
from torch.nn.functional import pad

from icsim.dsp import ERB_LEAST_HZ, erb_hz, erb_space
from icsim.recursive_filters import gammatone, section
from icsim.sound import REFERENCE_PA

RATE_HZ = 24000
"""Sample rate of every sound in here [Hz]."""

AUDIOMETRIC_HZ = (250, 500, 1000, 2000, 4000, 6000)
"""Where a loss is given [Hz]."""

BANDS, LOWEST_HZ, HIGHEST_HZ = 32, 80.0, 8000.0
"""Centre frequencies are evenly spaced in ERBs between these [Hz]."""

EAR_Q, ERB_FACTOR = 9.26449, 1.019
"""Width of a healthy filter. Source: Moore & Glasberg 1983, JASA 74:750-753."""

WIDEST_LOSS_DB_HL = 100.0
"""The filters that control compression are as wide as this loss makes them [dB HL]."""

LEVEL_KNEES_DB_SPL = (50.0, 100.0)
"""Between these levels of a band, its filter widens to its widest [dB SPL]."""

KNEE_DB_SPL, LINEAR_DB_SPL = 30.0, 100.0
"""A healthy band compresses between these [dB SPL]."""

RATIOS = (1.25, 3.5)
"""Compression ratios of the lowest and the highest healthy band."""

OUTER_SHARE = 0.8
"""Part of a loss that outer hair cells cause, as long as they are left.

Source: Moore et al. 1999, JASA 106:2761-2778.
"""

DELAY_HZ = 800.0
"""Corner of the low-pass that delays the compression by 0.2 ms [Hz]."""

LONGEST_LAG_S = 0.1
"""How far bands are moved to meet the reference, at most [s]."""

RAPID_S, SHORT_TERM_S, OVERSHOOT = 0.002, 0.06, 2.0
"""Time constants of adaptation [s], and how far an onset exceeds what follows."""

TINY = 1e-30
"""Keeps logarithms and ratios of silence finite."""

PASCAL_DB_SPL = 20 * math.log10(1 / REFERENCE_PA)
"""Level of a sound whose RMS is one pascal [dB SPL]."""


@dataclasses.dataclass(frozen=True)
class Cochlea:
    """What a loss leaves of each band, each `(B, C)`."""

    outer_db: Tensor
    """Attenuation by lost outer hair cells [dB]."""
    inner_db: Tensor
    """Attenuation by lost inner hair cells [dB]."""
    width: Tensor
    """Width of the filters at low levels, in widths of a healthy ear's."""
    knee_db_spl: Tensor
    """Level above which a band compresses [dB SPL]."""
    ratio: Tensor
    """Compression ratio."""

    @classmethod
    def from_thresholds(cls, thresholds_db_hl: Tensor) -> "Cochlea":
        """The cochlea of each listener.

        Args:
            thresholds_db_hl: At `AUDIOMETRIC_HZ` [dB HL], `(B, 6)`.
        """
        centres = centre_hz()
        ends = centres[0], *AUDIOMETRIC_HZ, centres[-1]
        given = thresholds_db_hl.detach().cpu().double().numpy()
        levels = np.pad(given, ((0, 0), (1, 1)), mode="edge")
        loss = np.stack([np.interp(centres, ends, row) for row in levels]).clip(min=0)
        healthy = np.linspace(*RATIOS, BANDS)
        span_db = LINEAR_DB_SPL - KNEE_DB_SPL
        # The loss at which outer hair cells are gone and the band is linear.
        outer_db = OUTER_SHARE * np.minimum(loss, 1.25 * span_db * (1 - 1 / healthy))
        width = 1 + outer_db / 50 + 2 * (outer_db / 50) ** 6
        knee = KNEE_DB_SPL + outer_db
        loudest = KNEE_DB_SPL + span_db / healthy
        ratio = (LINEAR_DB_SPL - knee) / (loudest + outer_db - knee)
        parts = outer_db, loss - outer_db, width, knee, ratio
        return cls(*(torch.from_numpy(part).to(thresholds_db_hl.device) for part in parts))


@dataclasses.dataclass(frozen=True)
class Vibration:
    """What the basilar membrane does."""

    envelope: Tensor
    """After compression, in the unit of the sound, `(B, C, T)`."""
    motion: Tensor | None
    """The compressed sound in each band, `(B, C, T)`, if it was wanted."""
    width: Tensor
    """Of the filters, at the level of the sound, `(B, C)`."""
    average_db: Tensor
    """Long-term spectrum above the listener's threshold [dB SL], `(B, C)`."""


@functools.cache
def centre_hz() -> np.ndarray:
    """Centre frequencies of the bands [Hz], ascending, `(C,)`."""
    return erb_space(LOWEST_HZ, HIGHEST_HZ, BANDS, corner_hz=EAR_Q * ERB_LEAST_HZ)


def middle_ear(sound: Tensor) -> Tensor:
    """Low-pass at 5 kHz and high-pass at 350 Hz, `(*, T)` to `(*, T)`."""
    return section(
        section(sound, *butter(1, 5000, fs=RATE_HZ)), *butter(2, 350, "high", fs=RATE_HZ)
    )


def vibrate(
    sound: Tensor,
    cochlea: Cochlea,
    motion: bool = True,
    full_scale_db_spl: float = PASCAL_DB_SPL,
) -> Vibration:
    """Filter and compress.

    Args:
        sound: Pressure [Pa] in double precision, `(B, T)`.
        cochlea: Of each sound's listener.
        motion: Whether the motion is wanted besides its envelope.
        full_scale_db_spl: Level of a sound whose RMS is 1, if it is not in pascals [dB SPL].
    """
    filtered = middle_ear(sound)
    flat = torch.full((1, len(AUDIOMETRIC_HZ)), WIDEST_LOSS_DB_HL)
    widest = Cochlea.from_thresholds(flat).width.to(sound)
    angle = torch.from_numpy(2 * np.pi / RATE_HZ * centre_hz()).to(sound)
    control, _ = gammatone(filtered, _radius(widest.expand(len(sound), -1)), angle, motion=False)
    control_rms = _rms(control)
    width = _widened(_decibels(control_rms) + full_scale_db_spl, cochlea.width, widest)
    envelope, moved = gammatone(filtered, _radius(width), angle, motion)
    gain = section(_gain(control, cochlea, full_scale_db_spl), *butter(1, DELAY_HZ, fs=RATE_HZ))
    average_db = _average_db(_rms(envelope), control_rms, cochlea, full_scale_db_spl)
    motion_gained = None if moved is None else moved * gain
    return Vibration(envelope * gain, motion_gained, width, average_db)


def align(sound: Tensor, reference: Tensor) -> Tensor:
    """Move each row, by 100 ms at most, to where it is most like its reference.

    Args:
        sound: `(*, T)`.
        reference: `(*, T)`.
    """
    return earlier(sound, lags(sound.detach(), reference.detach()))


def fire(
    envelope: Tensor,
    motion: Tensor | None,
    cochlea: Cochlea,
    full_scale_db_spl: float = PASCAL_DB_SPL,
) -> tuple[Tensor, Tensor | None]:
    """What inner hair cells pass on: sensation level, with onsets emphasised.

    Args:
        envelope: After compression, `(B, C, T)`.
        motion: The same of the motion, or None.
        cochlea: Of each sound's listener.
        full_scale_db_spl: Level of a sound whose RMS is 1 [dB SPL].

    Returns:
        The envelope [dB SL], and the motion with this envelope or None, each `(B, C, T)`.
    """
    offset_db = (full_scale_db_spl - cochlea.inner_db).unsqueeze(-1)
    some = envelope + TINY
    level_db = torch.add(offset_db, some.log(), alpha=20 / math.log(10)).relu()
    fired_db = section(level_db, *_adaptation()).relu()
    # Where alignment moved silence into the envelope alone, the motion stays as it is.
    return fired_db, None if motion is None else (fired_db + TINY) / some * motion


def even_delays(rows: Tensor, width: Tensor) -> Tensor:
    """Delay each band until all are as late as the latest.

    Args:
        rows: `(B, C, T)`.
        width: Of the filters, `(B, C)`.
    """
    radius = _radius(width.detach())
    # Of the filter at its centre frequency: the zeros' and the poles' slopes of phase.
    delay = (4 * radius / (1 - radius) + 4 * radius / (1 + 2 * radius)).round().long()
    return earlier(rows, delay - delay.amax(-1, keepdim=True))


def lags(sound: Tensor, reference: Tensor, longest_s: float = LONGEST_LAG_S) -> Tensor:
    """How much later than its reference each sound is, where their correlation is largest.

    Args:
        sound: `(*, T)`.
        reference: `(*, T)`.
        longest_s: Lags searched [s], both ways.

    Returns:
        Samples, `(*,)`; negative where it is earlier.
    """
    samples = sound.shape[-1]
    reach = min(round(longest_s * RATE_HZ), samples)
    block = math.ceil(samples / math.ceil(samples / (4 * reach)))
    size = next_fast_len(block + 2 * reach, real=True)
    correlation = 0
    # Blocks of the sound against all of the reference that is in reach of them; in double
    # precision, as single precision finds other peaks, which moves scores by up to 2e-4.
    for first in range(0, samples, block):
        piece = torch.fft.rfft(sound[..., first : first + block], size)
        begin, end = first - reach, first + block + reach
        near = pad(reference[..., max(begin, 0) : end], (max(-begin, 0), 0))
        correlation = correlation + piece.conj() * torch.fft.rfft(near, size)
    correlations = torch.fft.irfft(correlation, size)[..., 1 : 2 * reach + 1]
    return reach - 1 - correlations.argmax(-1)


def earlier(rows: Tensor, lag: Tensor) -> Tensor:
    """Move each row to the left by its own number of samples; zeros come in.

    Args:
        rows: `(*, T)`.
        lag: `(*,)`, negative to move to the right.

    >>> earlier(torch.tensor([[1.0, 2, 3], [1, 2, 3]]), torch.tensor([1, -1])).tolist()
    [[2.0, 3.0, 0.0], [0.0, 1.0, 2.0]]
    """
    return _Earlier.apply(rows, lag) if bool(lag.any()) else rows


class _Earlier(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, lag):
        ctx.save_for_backward(lag)
        samples = rows.shape[-1]
        source = rows.reshape(-1, samples)
        moved = torch.empty_like(source)
        for target, row, by in zip(moved, source, lag.flatten().tolist(), strict=True):
            first, last = min(max(-by, 0), samples), max(samples - max(by, 0), 0)
            target[:first], target[last:] = 0, 0
            target[first:last] = row[max(by, 0) : max(samples - max(-by, 0), 0)]
        return moved.view_as(rows)

    @staticmethod
    def backward(ctx, gradient):
        (lag,) = ctx.saved_tensors
        return _Earlier.apply(gradient, -lag), None


def _radius(width: Tensor) -> Tensor:
    """Of the poles of filters so much wider than a healthy ear's, `(B, C)`."""
    erb = torch.from_numpy(erb_hz(centre_hz(), EAR_Q)).to(width)
    return torch.exp(-2 * torch.pi / RATE_HZ * ERB_FACTOR * erb * width)


def _widened(level_db_spl: Tensor, width: Tensor, widest: Tensor) -> Tensor:
    low, high = LEVEL_KNEES_DB_SPL
    return width + ((level_db_spl - low) / (high - low)).clamp(0, 1) * (widest - width)


def _gain(control: Tensor, cochlea: Cochlea, full_scale_db_spl: float) -> Tensor:
    """Gain of the outer hair cells, from the envelope of the controlling band, `(B, C, T)`."""
    knee_db = cochlea.knee_db_spl.unsqueeze(-1)
    knee = 10 ** ((knee_db - full_scale_db_spl) / 20)
    top = torch.full_like(knee, 10 ** ((LINEAR_DB_SPL - full_scale_db_spl) / 20))
    exponent = (1 / cochlea.ratio - 1).unsqueeze(-1)
    most = math.log(10) / -20 * cochlea.outer_db.unsqueeze(-1) - exponent * knee.log()
    return torch.addcmul(most, exponent, control.clamp(knee, top).log()).exp()


def _average_db(
    envelope_rms: Tensor, control_rms: Tensor, cochlea: Cochlea, full_scale_db_spl: float
) -> Tensor:
    control_db = _decibels(control_rms) + full_scale_db_spl
    over_db = torch.minimum(control_db, torch.full_like(control_db, LINEAR_DB_SPL))
    over_db = torch.maximum(over_db, cochlea.knee_db_spl) - cochlea.knee_db_spl
    gain_db = -cochlea.outer_db - over_db * (1 - 1 / cochlea.ratio)
    level_db = (_decibels(envelope_rms) + full_scale_db_spl).relu()
    return (level_db + gain_db - cochlea.inner_db).relu()


def _rms(rows: Tensor) -> Tensor:
    """As a norm, whose gradient at silence is zero."""
    return torch.linalg.vector_norm(rows, dim=-1) / math.sqrt(rows.shape[-1])


def _decibels(amplitude: Tensor) -> Tensor:
    return 20 * amplitude.clamp(min=TINY).log10()


@functools.cache
def _adaptation() -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of the recursion that adapts.

    Two capacitors behind resistors, their voltages by backward differences: each step solves
    `matrix · voltages = rest · voltages before + input`.
    """
    first = 1 / OVERSHOOT
    second = third = (1 - first) / 2
    rapid = RAPID_S * RATE_HZ * (first + second)
    slow = SHORT_TERM_S * RATE_HZ * second / (first + second)
    matrix = np.array([[first + second + rapid, -first], [-third, second + third + slow]])
    inverse = np.linalg.inv(matrix)
    keep, feed = inverse * [rapid, slow], inverse[:, 0] * second
    # What leaves is the input less the first capacitor's new voltage, over the first resistor.
    denominator = np.array([1, -np.trace(keep), np.linalg.det(keep)])
    voltage = np.array([feed[0], keep[0, 1] * feed[1] - keep[1, 1] * feed[0], 0])
    return (denominator - voltage) / first, denominator
