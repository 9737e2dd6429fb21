"""How good it sounds: PESQ, HASQI, SI-SDR, and what became of the level.

Every score has the same signature, `(clean, processed, sample_rate, …) -> Score`; both sounds in
pascals, aligned in time.
"""

import contextlib
import itertools
import math

import torch
from torch import Tensor

from evaluation import haspi_hasqi
from evaluation.intelligibility import EAR_RATE_HZ, score_by_ear
from evaluation.table import Score, Sounds, score_each
from icsim.audiogram import Audiogram
from icsim.extras import extra
from icsim.sound import level

PESQ_RATE_HZ = 16000
"""Wide band [Hz]. Source: ITU-T P.862.2."""

PESQ_NARROW_RATE_HZ = 8000
"""Narrow band [Hz]. Source: ITU-T P.862."""

PESQ_LONGEST_S = 20.0
"""Longer sounds are judged in pieces [s], of which the standard knows nothing.

The reference program holds 50 utterances and crashes at the 51st. Utterances and pauses of at least
0.2 s each cannot number more than that in 20 s.
"""

PESQ_PIECE_S = 16.0
"""The pieces have this length on average, or less [s]: there is room to move their ends (chosen
here)."""

PESQ_SHORTEST_S = 8.0
"""No piece is shorter [s]. Source: ITU-T P.862.3, 7.1, for what PESQ is made for."""

QUIET_S = 0.2
"""A cut is where the clean sound is quietest for so long [s] (chosen here)."""

SI_SDR_LIMIT_DB = 100.0
"""Beyond it [dB] two sounds are the same, or have nothing in common (chosen here)."""


def pesq(clean: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """Perceptual evaluation of speech quality, wide band: 1 to 4.64 (MOS-LQO).

    Level does not matter: the package divides both sounds by their common peak, and PESQ then
    brings each to the same level.

    Args:
        clean: Clean speech, `(B, T)`. Sounds of more than 20 s are cut by `pieces`; the score is
            then the mean of the pieces, weighted by their lengths, and a note says so.
        processed: What is judged, `(B, T)`.
        sample_rate: Of both [Hz].

    Source: ITU-T P.862.2, by the pesq package, which needs a C compiler to install.
    """

    return _pesq(clean, processed, sample_rate, PESQ_RATE_HZ, "wb")


def pesq_narrow(clean: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """Perceptual evaluation of speech quality as a telephone carries it: 1.02 to 4.55 (MOS-LQO).

    What lies above 4 kHz is not judged; else as `pesq`. The two scales cannot be compared.

    Source: ITU-T P.862 mapped by P.862.1, by the pesq package.
    """
    return _pesq(clean, processed, sample_rate, PESQ_NARROW_RATE_HZ, "nb")


def _pesq(clean: Sounds, processed: Sounds, sample_rate: float, rate_hz: int, band: str) -> Score:
    def metric(clean: Tensor, processed: Tensor) -> tuple[float, str | None]:
        with extra("pesq"):
            import pesq as package

        cuts = pieces(clean, rate_hz)
        if len(cuts) == 1:
            return package.pesq(rate_hz, clean.numpy(), processed.numpy(), band), None
        scores = []
        for cut in cuts:
            with contextlib.suppress(package.NoUtterancesError):
                pair = clean[cut].numpy(), processed[cut].numpy()
                scores.append((cut.stop - cut.start, package.pesq(rate_hz, *pair, band)))
        if not scores:
            raise ValueError(f"no utterance in any of {len(cuts)} pieces")
        spoken = sum(samples for samples, _ in scores)
        mean = sum(samples * value for samples, value in scores) / spoken
        note = f"mean of {len(scores)} pieces of {spoken / len(scores) / rate_hz:.1f} s"
        without = len(cuts) - len(scores)
        return mean, note + (f"; {without} more without an utterance" if without else "")

    return score_each(metric, clean, processed, sample_rate, rate_hz)


def pieces(clean: Tensor, sample_rate: float) -> list[slice]:
    """Where a sound of more than 20 s is cut, into pieces of 8 to 20 s, at its quietest places.

    Args:
        clean: Clean speech, `(T,)`.
        sample_rate: [Hz].

    Returns:
        Samples of each piece; one piece if the sound is not longer than 20 s.

    >>> pieces(torch.ones(45 * 100), 100)
    [slice(0, 1500, None), slice(1500, 3000, None), slice(3000, 4500, None)]
    """
    samples = len(clean)
    if samples <= (PESQ_LONGEST_S + 1 / sample_rate) * sample_rate:
        return [slice(0, samples)]
    count = math.ceil(samples / sample_rate / PESQ_PIECE_S)
    each = samples / count
    # Both ends of a piece may move by so much.
    room = min(each - PESQ_SHORTEST_S * sample_rate, PESQ_LONGEST_S * sample_rate - each) / 2
    window = round(QUIET_S * sample_rate)
    ends = [0]
    for place in range(1, count):
        first, last = math.ceil(place * each - room), math.floor(place * each + room)
        around = clean[first - window // 2 : last - window // 2 + window]
        power = around.square().unfold(0, window, 1).mean(-1)
        quietest = (power <= power.min()).nonzero().flatten()
        # Of equally quiet places the middle one.
        ends.append(first + int(quietest[len(quietest) // 2]))
    return [slice(*pair) for pair in itertools.pairwise([*ends, samples])]


def hasqi(
    clean: Sounds,
    processed: Sounds,
    sample_rate: float,
    audiogram: Audiogram,
    seed: int = 0,
) -> Score:
    """Hearing-aid speech quality index, version 2: 0 to 1.

    The reference is the clean sound amplified by NAL-R and heard by the listener's own ear, so
    NAL-R is favoured by construction.

    Args:
        clean: Clean speech as it reaches the unaided ear [Pa], `(B, T)`, at least 1 s long.
        processed: What the listener hears [Pa], `(B, T)`.
        sample_rate: Of both [Hz].
        audiogram: The listener's thresholds.
        seed: Of the noise at the model's threshold.

    Source: Kates & Arehart 2014, JAES 62:99-117.
    """

    def metric(clean: Tensor, processed: Tensor) -> float:
        return haspi_hasqi.hasqi(clean[None], processed[None], EAR_RATE_HZ, audiogram, seed).item()

    return score_by_ear(metric, clean, processed, sample_rate, seed)


def si_sdr(clean: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """Scale-invariant signal-to-distortion ratio [dB], within ±100.

    Args:
        clean: The reference, `(B, T)`.
        processed: What is judged, `(B, T)`.
        sample_rate: Of both [Hz]; the ratio does not depend on it.

    Source: Le Roux et al. 2019, ICASSP, eq. 4 (means removed).
    """

    def metric(clean: Tensor, processed: Tensor) -> float:
        clean, processed = clean - clean.mean(), processed - processed.mean()
        target = clean * (processed @ clean) / (clean @ clean)
        distortion = processed - target
        ratio_db = 10 * torch.log10((target @ target) / (distortion @ distortion))
        return ratio_db.clamp(-SI_SDR_LIMIT_DB, SI_SDR_LIMIT_DB).item()

    return score_each(metric, clean, processed, sample_rate)


def output_level(clean: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """RMS level of the processed sound [dB SPL]."""
    return score_each(lambda _, after: level(after).item(), clean, processed, sample_rate)


def level_change(unprocessed: Sounds, processed: Sounds, sample_rate: float) -> Score:
    """RMS level of the processed sound above that of what went in [dB]."""

    def metric(before: Tensor, after: Tensor) -> float:
        return (level(after) - level(before)).item()

    return score_each(metric, unprocessed, processed, sample_rate)
