"""Hearing along the frequency axis: normal thresholds, shifts, and what is behind a shift."""

import numpy as np
import torch
from torch import Tensor

from icsim.simulation.cochlea import MAX_GAIN_DB, gain_control

FREQUENCIES_HZ = (250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
"""Where an animal's hearing is written down [Hz]; between them, linear in octaves."""

NORMAL_THRESHOLDS_DB_SPL = (40.0, 36.0, 32.0, 28.0, 31.0, 47.0, 44.0)
"""Thresholds of the average healthy ear [dB SPL]. Source: arXiv 2506.03088 from 1 kHz on; the
first two are chosen here and matter to nothing, as no loss reaches them."""

SHIFT_DB = (0.0, 0.0, 21.0, 35.0, 33.0, 25.0, 25.0)
"""Threshold shift of a hearing loss of severity 1 [dB]. Source: arXiv 2506.03088."""

LARGEST_OHC_DB = 50.0
"""Outer hair cells can lose no more gain than this [dB]."""


def at_frequencies(values: tuple[float, ...] | np.ndarray, frequency_hz: Tensor) -> Tensor:
    """Interpolate values at `FREQUENCIES_HZ` to any frequencies, linearly in octaves."""
    octaves = torch.log2(frequency_hz).double().cpu().numpy()
    return torch.from_numpy(np.interp(octaves, np.log2(FREQUENCIES_HZ), values)).float()


def split_shift(shift_db: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Loss of outer and of inner hair cells behind a threshold shift of an average ear.

    A gain lost costs more threshold than its decibels, because it is lost where the cochlea
    compresses: the level must rise until level + remaining gain is what it was.

    Args:
        shift_db: Threshold shift [dB] at `FREQUENCIES_HZ`.

    Returns:
        `ohc_db` and `ihc_db` [dB] at `FREQUENCIES_HZ`.
    """

    def gain(level_db_spl: np.ndarray) -> np.ndarray:
        return gain_control(torch.from_numpy(level_db_spl)).numpy()

    threshold = np.array(NORMAL_THRESHOLDS_DB_SPL)
    healthy_db = MAX_GAIN_DB * gain(threshold)
    outer_db = shift_db * 2 / 3
    ohc_db = MAX_GAIN_DB - (healthy_db - outer_db) / gain(threshold + outer_db)
    ohc_db = ohc_db.clip(0, LARGEST_OHC_DB)
    ihc_db = shift_db + (MAX_GAIN_DB - ohc_db) * gain(threshold + shift_db) - healthy_db
    return tuple(ohc_db.tolist()), tuple(ihc_db.clip(0).tolist())


def smooth_deviations(draw: np.random.Generator) -> np.ndarray:
    """Unit normal deviations at `FREQUENCIES_HZ`, alike at neighbours."""
    white = draw.standard_normal(len(FREQUENCIES_HZ) + 2)
    return (white[:-2] + white[1:-1] + white[2:]) / 3**0.5
