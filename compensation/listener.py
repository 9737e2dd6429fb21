"""What an aid is told of its listener: numbers in [0, 1], from a fitted θ or from an audiogram."""

import torch
from torch import Tensor

from icsim.audiogram import Audiogram

AUDIOGRAM_HZ = (250.0, 500.0, 1000.0, 2000.0, 3000.0, 4000.0, 6000.0, 8000.0)
"""Where an audiogram is read [Hz]: what audiometers measure."""

SPAN_DB = 120.0
"""Threshold that counts as 1 [dB HL]; 0 dB HL counts as 0."""


def from_audiogram(audiogram: Audiogram) -> Tensor:
    """Thresholds as an aid takes them, `(8,)`; better than 0 dB HL counts as 0.

    >>> from_audiogram(Audiogram([500, 4000], [0, 60])).tolist()[-1]
    0.5
    """
    return (audiogram.at(AUDIOGRAM_HZ).to(torch.get_default_dtype()) / SPAN_DB).clamp(0, 1)
