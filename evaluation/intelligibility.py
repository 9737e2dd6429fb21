"""How much of the speech is understood: STOI, ESTOI, HASPI.

Every score has the same signature, `(clean, processed, sample_rate, …) -> Score`; both sounds in
pascals, aligned in time.
"""

import math
from collections.abc import Callable

from torch import Tensor

from evaluation import kates
from evaluation.table import Score, Sounds, score_each
from icsim.audiogram import Audiogram
from icsim.sound import REFERENCE_PA, level

STOI_RATE_HZ = 10000
"""Source: Taal et al. 2011, IEEE TASLP 19:2125-2136."""

EAR_RATE_HZ = kates.RATE_HZ
"""Rate inside HASPI and HASQI [Hz]. Source: Kates & Arehart 2014, JAES 62:99-117.

pyclarity resamples by whole kilohertz and would take 24 414 Hz for 24 000; so it gets this rate.
"""

HEARD_LEAST_S, HEARD_RANGE_DB, HEARD_FLOOR_DB_SPL = 0.9, 40.0, 20.0
"""How much of the clean sound must be within a range of its loudest 10 ms, and above a floor.

With less, unrelated noise scores high: 0.01 for 3 s of speech, 0.39 for 0.5 s in silence, 0.93 for
3 s at 5 dB SPL (measured; chosen here).
"""

INSTALL_CLARITY = "pip install --no-deps pyclarity"


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
        import pystoi

        try:
            return pystoi.stoi(clean.numpy(), processed.numpy(), STOI_RATE_HZ, extended=extended)
        except RuntimeWarning as warning:  # else it would return nearly zero
            raise ValueError("too little speech: 0.4 s without pauses are needed") from warning

    return score_each(
        metric, clean, processed, sample_rate, STOI_RATE_HZ, install="pip install pystoi"
    )


def haspi(
    clean: Sounds,
    processed: Sounds,
    sample_rate: float,
    audiogram: Audiogram,
    seed: int = 0,
    pyclarity: bool = False,
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
        pyclarity: Ask the reference program, which takes several times as long, in place of
            `evaluation.kates`, which agrees with it.

    Returns:
        Score, `(B,)`; missing too where less than 0.9 s of the clean sound can be heard.

    Source: Kates & Arehart 2021, Speech Commun. 131:35-46.
    """

    def metric(clean: Tensor, processed: Tensor) -> float:
        if (heard_s := _heard_s(clean)) < HEARD_LEAST_S:
            raise ValueError(f"only {heard_s:.2f} s of the clean sound are heard by a normal ear")
        if not pyclarity:
            return kates.haspi(clean[None], processed[None], EAR_RATE_HZ, audiogram, seed).item()
        from clarity.evaluator.haspi import haspi_v2

        ear = clarity_ear(audiogram)
        return haspi_v2(clean.numpy(), EAR_RATE_HZ, processed.numpy(), EAR_RATE_HZ, **ear)[0]

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
        metric,
        clean,
        processed,
        sample_rate,
        EAR_RATE_HZ,
        kates.SHORTEST_S,
        install="pip install --no-deps pyclarity",
        seed=seed,
    )


def _heard_s(clean: Tensor) -> float:
    """For how long a normal ear hears the sound, at `EAR_RATE_HZ` [s]."""
    frames = clean.unfold(0, EAR_RATE_HZ // 100, EAR_RATE_HZ // 100)
    levels = level(frames)
    floor = (levels.max() - HEARD_RANGE_DB).clamp(min=HEARD_FLOOR_DB_SPL)
    return (levels > floor).sum().item() / 100


def clarity_ear(audiogram: Audiogram) -> dict:
    """The listener as pyclarity wants it: an audiogram, and the level of RMS 1.

    `level1` is the sound pressure level that an RMS of 1 stands for; in pascals 93.98 dB SPL.
    """
    from clarity.utils import audiogram as clarity_audiogram

    thresholds = audiogram.at(kates.AUDIOMETRIC_HZ).double().numpy()
    ear = clarity_audiogram.Audiogram(thresholds, kates.AUDIOMETRIC_HZ)
    return {"audiogram": ear, "level1": 20 * math.log10(1 / REFERENCE_PA)}
