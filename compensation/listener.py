"""What an aid is told of its listener: numbers in [0, 1], from a fitted θ or from an audiogram."""

from collections.abc import Sequence

import torch
from torch import Tensor

from icsim.audiogram import Audiogram

AUDIOGRAM_HZ = (
    *(125.0, 250.0, 375.0, 500.0, 750.0, 1000.0),
    *(1500.0, 2000.0, 3000.0, 4000.0, 6000.0, 8000.0),
)
"""Where an audiogram is read [Hz]: all that audiometers measure (ISO 8253-1), and 375 Hz, which the
standard audiograms have (IEC 60118-15)."""

EIGHT_HZ = (250.0, 500.0, 1000.0, 2000.0, 3000.0, 4000.0, 6000.0, 8000.0)
"""Where audiograms are compared [Hz], and where aids whose checkpoint does not say it read them.
Between them a steep loss is up to 8 dB off (`S2` at 1500 Hz)."""

ALIKE_DB = 10.0
"""Root mean square difference of audiograms that are still much alike (chosen here; two audiometers
differ by half of it)."""

SPAN_DB = 120.0
"""Threshold that counts as 1 [dB HL]; 0 dB HL counts as 0."""


def from_audiogram(audiogram: Audiogram, frequencies_hz: Sequence[float] = AUDIOGRAM_HZ) -> Tensor:
    """Thresholds as an aid takes them, `(F,)`; better than 0 dB HL counts as 0.

    Args:
        audiogram: The listener's.
        frequencies_hz: Where the aid was trained to be told of it: `audiogram_hz` of its facts.

    >>> from_audiogram(Audiogram([500, 4000], [0, 60])).tolist()[-1]
    0.5
    """
    return (audiogram.at(frequencies_hz).to(torch.get_default_dtype()) / SPAN_DB).clamp(0, 1)


def theta_like(audiogram: Audiogram, others: Sequence[Audiogram], theta: Tensor) -> Tensor:
    """A guess of θ: the mean of listeners, weighted by how much their audiograms are alike.

    It knows nothing of what audiograms do not show.

    Args:
        audiogram: The listener's.
        others: Audiograms of listeners whose θ is known, A of them.
        theta: Theirs, `(A, P)`.

    Returns:
        `(P,)`.

    Raises:
        ValueError: If there is not one audiogram for each θ.

    >>> flat, sloping = Audiogram([500, 4000], [0, 0]), Audiogram([500, 4000], [0, 60])
    >>> theta_like(sloping, [flat, sloping], torch.tensor([[0.2], [0.8]])).round(decimals=2)
    tensor([0.8000])
    """
    if len(others) != len(theta) or not len(theta):
        raise ValueError(f"{len(others)} audiograms for {len(theta)} listeners; give one for each")
    shifts = audiogram.at(EIGHT_HZ)
    apart = torch.stack([other.at(EIGHT_HZ) - shifts for other in others]) / ALIKE_DB
    weights = torch.softmax(-apart.square().mean(1) / 2, 0).to(theta)
    return weights @ theta
