"""All scores of one file of one device: what each means, and a row that holds them."""

import dataclasses
import math
from collections.abc import Sequence

import torch

from evaluation.folders import Pair, Prepared, Reading, prepare
from evaluation.intelligibility import estoi, haspi, stoi
from evaluation.neural import Midbrain, discrepancies, pooled_restoration
from evaluation.quality import hasqi, level_change, output_level, pesq, pesq_narrow, si_sdr
from evaluation.table import Score
from icsim.audiogram import Audiogram
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, level, resample

SIGNAL_SCORES = ("stoi", "estoi", "pesq", "pesq_narrow", "si_sdr_db")
"""What needs no listener and no level."""

EAR_SCORES = ("haspi", "hasqi")
"""What needs an audiogram."""

LEVELS = ("output_db_spl", "level_change_db")

RESTORATION = "restoration"
"""What needs θ and a model."""

ALL_SCORES = (*SIGNAL_SCORES, *EAR_SCORES, RESTORATION, *LEVELS)


@dataclasses.dataclass(frozen=True)
class Meaning:
    """How a score is shown and read."""

    label: str
    better: int
    """1 if more is better, 0 if neither is."""
    digits: int
    text: str


MEANINGS = {
    "stoi": Meaning(
        "STOI",
        1,
        3,
        "Intelligibility for normal ears, 0 to 1. Blind to level and to hearing loss.",
    ),
    "estoi": Meaning(
        "ESTOI", 1, 3, "As STOI, and valid in fluctuating noise too. Prefer it to STOI."
    ),
    "pesq": Meaning(
        "PESQ wide",
        1,
        2,
        "Quality for normal ears, 1.04 to 4.64, up to 8 kHz. Counts intended gain by frequency "
        "as a fault; near its floor in noise.",
    ),
    "pesq_narrow": Meaning(
        "PESQ narrow",
        1,
        2,
        "The same up to 4 kHz, 1.02 to 4.55, on a scale of its own.",
    ),
    "si_sdr_db": Meaning(
        "SI-SDR [dB]",
        1,
        1,
        "Speech over all that is not the clean waveform. Every intended gain by frequency, and "
        "half a sample of delay, count as distortion.",
    ),
    "haspi": Meaning(
        "HASPI",
        1,
        3,
        "Intelligibility for the audiogram, 0 to 1. Near its top for mild losses; may rise with "
        "distortions that are plainly heard: read a quality score beside it.",
    ),
    "hasqi": Meaning(
        "HASQI",
        1,
        3,
        "Quality for the audiogram, 0 to 1. Its ideal is clean speech amplified by NAL-R, which "
        "favours NAL-R.",
    ),
    "restoration": Meaning(
        "Restoration",
        1,
        3,
        "Share of the difference between the listener's midbrain and a normal one that the device "
        "takes away: 1 all, 0 none, below 0 harm. A learned model's opinion, pooled over files.",
    ),
    "output_db_spl": Meaning(
        "Output [dB SPL]",
        0,
        1,
        "RMS level of the processed sound.",
    ),
    "level_change_db": Meaning(
        "Level change [dB]",
        0,
        1,
        "How much louder it became. A louder device is easily taken for a better one.",
    ),
}

METRICS = {
    "stoi": stoi,
    "estoi": estoi,
    "pesq": pesq,
    "pesq_narrow": pesq_narrow,
    "si_sdr_db": si_sdr,
    "output_db_spl": output_level,
}
"""Scores that compare with the clean sound and know no listener."""

EAR_METRICS = {"haspi": haspi, "hasqi": hasqi}
"""Those that know the listener's audiogram."""

LEAST_ALIKE = 0.3
"""Correlation of noisy and clean samples from which one says how loud the other is in it: 0.3 is
that of speech in independent noise at −10 dB SNR (chosen here)."""


def score_pair(
    pair: Pair,
    names: Sequence[str],
    reading: Reading | None = None,
    ear: Audiogram | None = None,
    midbrains: tuple[Midbrain, Midbrain] | None = None,
    seed: int = 0,
) -> dict:
    """Scores of one file of one device, or the reasons why there are none.

    Args:
        pair: The files.
        names: Which scores, of `ALL_SCORES`.
        reading: How files are read.
        ear: The listener of HASPI and HASQI.
        midbrains: The listener's and a normal one, for restoration.
        seed: Of the noise within HASPI and HASQI.

    Returns:
        What JSON can hold: `device`, `file`, `scores` (None if missing), `reasons` of those that
        are, `notes`, `facts` and `stamps`, the state of the files.

    Raises:
        ValueError: If a score needs an audiogram or midbrains that are not given.
    """
    row = {"device": pair.device, "file": pair.name, "stamps": pair.stamps}
    try:
        sounds = prepare(pair, reading)
    except (ValueError, RuntimeError, OSError) as error:
        return row | failure(names, str(error))
    facts = {
        "delay_ms": None if sounds.delay_s is None else 1000 * sounds.delay_s,
        "duration_s": len(sounds.clean) / sounds.rate_hz,
        "rate_hz": sounds.rate_hz,
        **levels(sounds),
    }
    scores: dict[str, Score] = {}
    for name in names:
        if name == RESTORATION:
            if midbrains is None:
                raise ValueError(f"{name} needs the listener's midbrain and a normal one")
            scores[name], amounts = _restoration(sounds, *midbrains)
            facts |= amounts
        elif name in EAR_SCORES:
            if ear is None:
                raise ValueError(f"{name} needs the listener's audiogram")
            arguments = (sounds.clean[None], sounds.processed[None], sounds.rate_hz)
            scores[name] = EAR_METRICS[name](*arguments, ear, seed)
        else:
            scores[name] = _score(name, sounds)
    values = {name: score.values.item() for name, score in scores.items()}
    notes = [f"{name}: {s.notes[0]}" for name, s in scores.items() if s.notes and s.notes[0]]
    return row | {
        "scores": {name: None if math.isnan(x) else x for name, x in values.items()},
        "reasons": {name: s.reasons[0] for name, s in scores.items() if s.reasons[0]},
        "notes": [*sounds.notes, *notes],
        "facts": facts,
    }


def failure(names: Sequence[str], reason: str) -> dict:
    """The part of a row that says why nothing could be scored."""
    return {
        "scores": dict.fromkeys(names),
        "reasons": dict.fromkeys(names, reason),
        "notes": [],
        "facts": {},
    }


def levels(sounds: Prepared) -> dict[str, float | None]:
    """Levels of the sounds of a row [dB SPL], by which folders are compared.

    `speech_in_noisy_db` is by how much the clean speech is louder within the noisy sound than by
    itself: 0 where the two folders have the same full scale. None where there is no noisy sound, or
    the two are hardly alike.
    """
    decibel: dict[str, float | None] = {
        "clean_db_spl": level(sounds.clean).item(),
        "processed_db_spl": level(sounds.processed).item(),
    }
    if sounds.noisy is None:
        return decibel
    clean, noisy = sounds.clean.double(), sounds.noisy.double()
    product = (clean @ noisy).item()
    alike = product > LEAST_ALIKE * (clean.norm() * noisy.norm()).item()
    ratio_db = 20 * math.log10(product / (clean @ clean).item()) if alike else None
    return decibel | {"noisy_db_spl": level(sounds.noisy).item(), "speech_in_noisy_db": ratio_db}


def _score(name: str, sounds: Prepared) -> Score:
    clean, processed, rate = sounds.clean[None], sounds.processed[None], sounds.rate_hz
    if name in METRICS:
        return METRICS[name](clean, processed, rate)
    if sounds.without_noisy:
        return _missing(sounds.without_noisy)
    return level_change(_unprocessed(sounds)[None], processed, rate)


def _restoration(
    sounds: Prepared, impaired: Midbrain, normal: Midbrain
) -> tuple[Score, dict[str, float]]:
    """Neural restoration, and the discrepancies that it is made of, to be pooled."""
    if sounds.without_noisy:
        return _missing(sounds.without_noisy), {}
    before, after = (
        resample(sound, sounds.rate_hz)[None] for sound in (_unprocessed(sounds), sounds.processed)
    )
    if before.shape[-1] < BIN_SAMPLES:
        return _missing(f"{before.shape[-1] / SAMPLE_RATE:.3g} s is too short"), {}
    try:
        aided, unaided = discrepancies(impaired, normal, before, after)
        value = pooled_restoration(aided, unaided)
    except (ValueError, RuntimeError) as error:
        return _missing(str(error)), {}
    score = Score(torch.tensor([value], dtype=torch.float64), (None,))
    return score, {"discrepancy_aided": aided.item(), "discrepancy_unaided": unaided.item()}


def _unprocessed(sounds: Prepared) -> torch.Tensor:
    """What went into the device."""
    return sounds.clean if sounds.noisy is None else sounds.noisy


def _missing(reason: str) -> Score:
    return Score(torch.tensor([math.nan], dtype=torch.float64), (reason,))
