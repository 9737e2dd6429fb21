"""Two ears hear a pair of sounds: what HASPI and HASQI share after the ear.

Source: Kates & Arehart 2014, JAES 62:99-117 and 2021, Speech Commun. 131:35-46, as implemented by
pyclarity 0.9.0.
"""

import dataclasses
from collections.abc import Callable

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from evaluation.ear_model import (
    BANDS,
    RATE_HZ,
    TINY,
    Cochlea,
    align,
    earlier,
    even_delays,
    fire,
    vibrate,
)

Normals = Callable[[int, int], Tensor | None]
"""Normal random numbers `(rows, columns)`, new ones at each call; None for no noise."""

HEARD = 1e-3
"""Of the clean sound's peak: what is below at its beginning and its end is cut away."""

EARLY_S = 0.002
"""So much earlier than its correlation says is the processed sound cut, for dispersion [s]."""

HEARD_DB = 2.5
"""Loudness above which a moment of the clean sound counts [dB SL]."""

THRESHOLD_NOISE_DB = -10.0
"""Level of the noise in the motion of the basilar membrane [dB]."""

CEPSTRA = 5
"""Cepstral coefficients that count, beside the first, which is the level."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """What two ears make of a clean and a processed sound."""

    reference_db: Tensor
    """Envelope of the clean sound [dB SL], `(C, T)`."""
    heard_db: Tensor
    """Envelope of the processed one [dB SL], `(C, T)`."""
    motions: tuple[Tensor, ...]
    """Motion of the basilar membrane by either, its envelope in dB, `(C, T)`; none if it was not
    wanted."""
    reference_spectrum_db: Tensor
    """Long-term spectrum [dB SL], `(C,)`."""
    heard_spectrum_db: Tensor
    """The same of the processed sound."""


def together(clean: Tensor, processed: Tensor) -> tuple[Tensor, Tensor]:
    """Align the processed sound with the clean one, and cut both to what is heard of that one.

    Args:
        clean: At `RATE_HZ`, not silent, `(T,)`.
        processed: `(T,)`; gradients pass.

    Returns:
        Both, as long as what is left.
    """
    late = _late(clean, processed.detach()) - round(EARLY_S * RATE_HZ)
    audible = (clean.abs() > HEARD * clean.abs().max()).nonzero()
    part = slice(int(audible[0]), int(audible[-1]) + 1)
    return clean[part], earlier(processed, torch.tensor(late))[part]


def listen(
    sounds: tuple[Tensor, Tensor],
    thresholds_db_hl: tuple[Tensor, Tensor],
    full_scale_db_spl: float,
    normals: Normals | None = None,
) -> Pair:
    """What two ears make of two sounds.

    Args:
        sounds: Clean and processed in double precision, from `together`, `(T,)` each.
        thresholds_db_hl: Of the ear that hears either, `(6,)` each.
        full_scale_db_spl: Level of a sound whose RMS is 1 [dB SPL].
        normals: Noise of the motion, if the motion is wanted.
    """
    ears = [Cochlea.from_thresholds(one.unsqueeze(0)) for one in thresholds_db_hl]
    reference, processed = (
        vibrate(sound.unsqueeze(0), ear, normals is not None, full_scale_db_spl)
        for sound, ear in zip(sounds, ears, strict=True)
    )
    moved = None
    if processed.motion is not None and reference.motion is not None:
        moved = align(processed.motion, reference.motion)
    rows = [
        (reference.envelope, reference.motion),
        (align(processed.envelope, reference.envelope), moved),
    ]
    fired = [fire(*row, ear, full_scale_db_spl) for row, ear in zip(rows, ears, strict=True)]
    first, second = (even_delays(envelope, reference.width)[0] for envelope, _ in fired)
    gain = 10 ** ((THRESHOLD_NOISE_DB - full_scale_db_spl) / 20)
    motions = tuple(
        even_delays(_with_noise(row, gain, normals(*row.shape[1:])), reference.width)[0]
        for _, row in fired
        if row is not None and normals is not None
    )
    return Pair(first, second, motions, reference.average_db[0], processed.average_db[0])


def _late(clean: Tensor, processed: Tensor) -> int:
    """How much later the processed sound is, by their correlation [samples]."""
    samples = len(clean)
    size = next_fast_len(2 * samples - 1, real=True)
    first, second = (torch.fft.rfft(one - one.mean(), size) for one in (clean, processed))
    correlations = torch.fft.irfft(first * second.conj(), size).abs()
    # In this order the first of equals is the one that counts, as for silence.
    return (
        samples
        - 1
        - int(torch.cat([correlations[size - samples + 1 :], correlations[:samples]]).argmax())
    )


def _with_noise(rows: Tensor, gain: float, noise: Tensor | None) -> Tensor:
    return rows if noise is None else torch.add(rows, noise, alpha=gain)


def loud_moments(envelope_db: Tensor) -> Tensor:
    """Whether the reference is heard at each moment, `(C, N)` to `(N,)`.

    Raises:
        ValueError: If it never is, or once only.
    """
    loudness = 20 * (10 ** (envelope_db / 20)).mean(0).log10()
    moments = loudness > HEARD_DB
    if int(moments.sum()) < 2:
        raise ValueError(
            "nothing of the clean sound is above threshold; give it in pascals, or leave it out"
        )
    return moments


def cepstra(envelope_db: Tensor) -> Tensor:
    """Cepstral coefficients without the level, `(C, N)` to `(5, N)`."""
    band = torch.arange(BANDS).to(envelope_db)
    order = torch.arange(1, CEPSTRA + 1).to(envelope_db)
    basis = torch.cos(torch.pi / (BANDS - 1) * torch.outer(order, band))
    return (basis / torch.linalg.vector_norm(basis, dim=1, keepdim=True)) @ envelope_db


def correlation(reference: Tensor, processed: Tensor) -> Tensor:
    """Absolute correlation over time, `(*, N)` to `(*,)`; 0 where either is constant."""
    reference = reference - reference.mean(-1, keepdim=True)
    processed = processed - processed.mean(-1, keepdim=True)
    power, power_heard = reference.square().sum(-1), processed.square().sum(-1)
    moves = (power >= TINY) & (power_heard >= TINY)
    norm = torch.where(moves, power * power_heard, 1).sqrt()
    return torch.where(moves, (reference * processed).sum(-1).abs() / norm, 0)
