"""NAL-R: linear gain from the audiogram, as a linear-phase filter.

Source: Byrne & Dillon 1986, Ear Hear. 7:257-265; the filter as the Clarity challenges and HASQI
have it (pyclarity 0.9.0), with which this agrees.
"""

from collections.abc import Sequence

import numpy as np

from icsim.dsp import fir_from_gains

NAL_R_HZ = (250, 500, 1000, 2000, 4000, 6000)
"""Where the gain is defined [Hz]."""

BIAS_DB = np.array([-17, -8, 1, -1, -2, -2])
"""Of the gain at `NAL_R_HZ` [dB]."""

STEEP_DB_HL = 180.0
"""Sum of the thresholds at 500, 1000 and 2000 Hz beyond which the gain grows faster [dB HL]."""

GRID = 513
"""Frequencies that a filter's response is sampled at."""


def insertion_gain_db(thresholds_db_hl: Sequence[float]) -> np.ndarray:
    """Gain at `NAL_R_HZ` [dB], not negative, `(6,)`; none where no threshold is above 0 dB HL.

    Args:
        thresholds_db_hl: At `NAL_R_HZ` [dB HL], `(6,)`.

    >>> insertion_gain_db([45, 45, 35, 45, 60, 65]).round(2).tolist()
    [3.2, 12.2, 18.1, 19.2, 22.85, 24.4]
    """
    loss = np.asarray(thresholds_db_hl, dtype=float)
    if loss.max() <= 0:
        return np.zeros(len(NAL_R_HZ))
    total = loss[1:4].sum()
    average = 0.05 * min(total, STEEP_DB_HL) + 0.116 * max(total - STEEP_DB_HL, 0)
    return (average + 0.31 * loss + BIAS_DB).clip(min=0)


def nal_r_taps(thresholds_db_hl: Sequence[float], order: int, sample_rate_hz: float) -> np.ndarray:
    """Taps of a symmetric filter with the gain, delayed by half its order, `(order + 1,)`.

    Args:
        thresholds_db_hl: At `NAL_R_HZ` [dB HL], `(6,)`; an ear without any loss gets one impulse.
        order: Even; delay is half of it [samples].
        sample_rate_hz: Of the sounds [Hz], above 12 kHz.
    """
    if np.max(thresholds_db_hl) <= 0:
        return np.eye(1, order + 1, order // 2)[0]
    gains_db = insertion_gain_db(thresholds_db_hl)
    places = np.linspace(0, 1, order + 1)
    hz = 0, *NAL_R_HZ, sample_rate_hz / 2
    ends = np.pad(gains_db, 1, mode="edge")
    gains = 10 ** (np.interp(places * sample_rate_hz / 2, hz, ends) / 20)
    return fir_from_gains(places, gains, order, GRID)
