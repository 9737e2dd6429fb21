"""How much of the speech is understood: STOI, ESTOI, HASPI.

Every score has the same signature, `(clean, processed, sample_rate, …) -> Score`; both sounds in
pascals, aligned in time.
"""

from collections.abc import Callable

from torch import Tensor

from evaluation import haspi_hasqi
from evaluation.table import Score, Sounds, score_each
from icsim.audiogram import Audiogram
from icsim.extras import extra
from icsim.sound import level

STOI_RATE_HZ = 10000
"""Source: Taal et al. 2011, IEEE TASLP 19:2125-2136."""

EAR_RATE_HZ = haspi_hasqi.RATE_HZ
"""Rate inside HASPI and HASQI [Hz]. Source: Kates & Arehart 2014, JAES 62:99-117."""

HEARD_LEAST_S, HEARD_RANGE_DB, HEARD_FLOOR_DB_SPL = 0.9, 40.0, 20.0
"""How much of the clean sound must be within a range of its loudest 10 ms, and above a floor.

With less, unrelated noise scores high: 0.01 for 3 s of speech, 0.39 for 0.5 s in silence, 0.93 for
3 s at 5 dB SPL (measured; chosen here).
"""


def stoi(clean: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """Short-time objective intelligibility, at most 1; level does not matter.

    Args:
        clean: Clean speech, `(B, T)`.
        processed: What is judged, `(B, T)`.
        sample_rate: Of both [Hz].

    Source: Taal et al. 2011, IEEE TASLP 19:2125-2136, by pystoi.
    """
    return _stoi(clean, processed, sample_rate, extended=False)


def estoi(clean: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """Extended STOI, which also holds in fluctuating noise; as `stoi`.

    Source: Jensen & Taal 2016, IEEE/ACM TASLP 24:2009-2022, by pystoi.
    """
    return _stoi(clean, processed, sample_rate, extended=True)


def _stoi(clean: Sounds, processed: Sounds, sample_rate: float, extended: bool) -> Score:
    def metric(clean: Tensor, processed: Tensor) -> float:
        with extra("metrics"):
            import pystoi

        try:
            return pystoi.stoi(clean.numpy(), processed.numpy(), STOI_RATE_HZ, extended=extended)
        except RuntimeWarning as warning:  # else it would return nearly zero
            raise ValueError("too little speech: 0.4 s without pauses are needed") from warning

    return score_each(metric, clean, processed, sample_rate, STOI_RATE_HZ)


def haspi(
    clean: Sounds,
    processed: Sounds,
    sample_rate: float,
    audiogram: Audiogram,
    seed: int = 0,
) -> Score:
    """Hearing-aid speech perception index, version 2: 0 to 1.

    What a normal ear makes of the clean sound is compared with what the listener's makes of the
    processed one, each at the level that its pascals say. It saturates for mild losses and rises
    under distortions that are plainly heard: show a quality score beside it.

    Args:
        clean: Clean speech as it reaches the unaided ear [Pa], `(B, T)`, at least 1 s long.
        processed: What the listener hears [Pa], `(B, T)`.
        sample_rate: Of both [Hz].
        audiogram: The listener's thresholds.
        seed: Of the noise in the model's nerve.

    Returns:
        Score, `(B,)`; missing too where less than 0.9 s of the clean sound can be heard.

    Source: Kates & Arehart 2021, Speech Commun. 131:35-46.
    """

    def metric(clean: Tensor, processed: Tensor) -> float:
        if (heard_s := _heard_s(clean)) < HEARD_LEAST_S:
            raise ValueError(f"only {heard_s:.2f} s of the clean sound are heard by a normal ear")
        return haspi_hasqi.haspi(clean[None], processed[None], EAR_RATE_HZ, audiogram, seed).item()

    return score_by_ear(metric, clean, processed, sample_rate, seed)


def score_by_ear(
    metric: Callable[[Tensor, Tensor], float],
    clean: Sounds,
    processed: Sounds,
    sample_rate: float,
    seed: int,
) -> Score:
    """Score each pair at the rate of the ear in HASPI and HASQI; as `score_each`."""
    return score_each(
        metric, clean, processed, sample_rate, EAR_RATE_HZ, haspi_hasqi.SHORTEST_S, seed=seed
    )


def _heard_s(clean: Tensor) -> float:
    """For how long a normal ear hears the sound, at `EAR_RATE_HZ` [s]."""
    frames = clean.unfold(0, EAR_RATE_HZ // 100, EAR_RATE_HZ // 100)
    levels = level(frames)
    floor = (levels.max() - HEARD_RANGE_DB).clamp(min=HEARD_FLOOR_DB_SPL)
    return (levels > floor).sum().item() / 100
