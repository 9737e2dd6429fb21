"""All scores of one file, and of many files side by side."""

import collections
import math
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool

import torch

from evaluation.intelligibility import estoi, haspi, stoi
from evaluation.neural import discrepancies, pooled_restoration
from evaluation.quality import hasqi, level_change, output_level, pesq, pesq_narrow, si_sdr
from evaluation.table import Score
from icsim.audiogram import audiogram
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, level, resample
from recipes.evaluate.config import RESTORATION, Config, wanted_scores
from recipes.evaluate.files import Pair, Prepared, prepare
from recipes.jobs import processes

METRICS = {
    "stoi": stoi,
    "estoi": estoi,
    "pesq": pesq,
    "pesq_narrow": pesq_narrow,
    "si_sdr_db": si_sdr,
    "output_db_spl": output_level,
}
"""Scores that compare with the clean sound and know no listener."""

LEAST_ALIKE = 0.3
"""Correlation of noisy and clean samples from which one says how loud the other is in it: 0.3 is
that of speech in independent noise at −10 dB SNR (chosen here)."""

CRASHED = "the process that scored it crashed"


def row(config: Config, pair: Pair) -> dict:
    """One file of one device: its scores, or the reasons why there are none.

    Returns:
        What JSON can hold: `device`, `file`, `scores` (None if missing), `reasons` of those that
        are, `notes`, `facts`, and `made_of`, the state of the files.
    """
    found = {"device": pair.device, "file": pair.name, "made_of": pair.made_of}
    try:
        sounds = prepare(pair, config)
    except (ValueError, RuntimeError, OSError) as error:
        return found | failed(config, str(error))
    scores, facts = (
        {},
        {
            "delay_ms": None if sounds.delay_s is None else 1000 * sounds.delay_s,
            "duration_s": len(sounds.clean) / sounds.rate_hz,
            "rate_hz": sounds.rate_hz,
            **levels(sounds),
        },
    )
    for name in wanted_scores(config):
        if name == RESTORATION:
            scores[name], discrepancies_found = _restoration(config, sounds)
            facts |= discrepancies_found
        else:
            scores[name] = _score(name, config, sounds)
    values = {name: score.values.item() for name, score in scores.items()}
    notes = [f"{name}: {s.notes[0]}" for name, s in scores.items() if s.notes and s.notes[0]]
    return found | {
        "scores": {name: None if math.isnan(x) else x for name, x in values.items()},
        "reasons": {name: s.reasons[0] for name, s in scores.items() if s.reasons[0]},
        "notes": [*sounds.notes, *notes],
        "facts": facts,
    }


def levels(sounds: Prepared) -> dict[str, float | None]:
    """Levels of the sounds of a row [dB SPL], by which folders are compared.

    `speech_in_noisy_db` is by how much the clean speech is louder within the noisy sound than by
    itself: 0 where the two folders have the same full scale. None where there is no noisy sound, or
    the two are hardly alike.
    """
    found = {
        "clean_db_spl": level(sounds.clean).item(),
        "processed_db_spl": level(sounds.processed).item(),
    }
    if sounds.noisy is None:
        return found
    clean, noisy = sounds.clean.double(), sounds.noisy.double()
    product = (clean @ noisy).item()
    alike = product > LEAST_ALIKE * (clean.norm() * noisy.norm()).item()
    ratio_db = 20 * math.log10(product / (clean @ clean).item()) if alike else None
    return found | {"noisy_db_spl": level(sounds.noisy).item(), "speech_in_noisy_db": ratio_db}


def failed(config: Config, reason: str) -> dict:
    """The part of a row that says why nothing could be scored."""
    names = wanted_scores(config)
    return {
        "scores": dict.fromkeys(names),
        "reasons": dict.fromkeys(names, reason),
        "notes": [],
        "facts": {},
    }


Work = Callable[[Config, Pair], dict]
"""Makes the row of a pair; a function of a module, so that another process finds it."""


def side_by_side(config: Config, pairs: list[Pair], work: Work = row) -> Iterator[dict]:
    """Rows of all pairs, in the order in which they are finished.

    A pair that crashes its process (programs in C may) costs that pair and no other, unless
    everything runs in this process, which one worker does.
    """
    if min(config.workers, len(pairs)) < 2:
        for pair in pairs:
            yield work(config, pair)
        return
    waiting = collections.deque(pairs)
    while waiting:
        running: dict = {}
        with processes(config.workers) as pool:
            try:
                while waiting or running:
                    # Few at a time, so that few are suspects after a crash.
                    while waiting and len(running) <= config.workers:
                        running[pool.submit(work, config, waiting[0])] = waiting[0]
                        waiting.popleft()
                    for job in wait(running, return_when=FIRST_COMPLETED).done:
                        finished = job.result()
                        del running[job]
                        yield finished
            except BrokenProcessPool:
                pass
        for pair in running.values():
            yield _after_a_crash(work, config, pair)


def _after_a_crash(work: Work, config: Config, pair: Pair) -> dict:
    """A pair that may have crashed its process, in one of its own."""
    with processes(1) as pool:
        try:
            return pool.submit(work, config, pair).result()
        except BrokenProcessPool:
            found = {"device": pair.device, "file": pair.name, "made_of": pair.made_of}
            return found | failed(config, CRASHED)


def _score(name: str, config: Config, sounds: Prepared) -> Score:
    clean, processed, rate = sounds.clean[None], sounds.processed[None], sounds.rate_hz
    if name in METRICS:
        return METRICS[name](clean, processed, rate)
    if name == "level_change_db":
        if sounds.without_noisy:
            return _missing(sounds.without_noisy)
        return level_change(_unprocessed(sounds)[None], processed, rate)
    metric = {"haspi": haspi, "hasqi": hasqi}[name]
    ear = audiogram(config.audiogram)
    return metric(clean, processed, rate, ear, config.seed)


def _restoration(config: Config, sounds: Prepared) -> tuple[Score, dict[str, float]]:
    """Neural restoration, and the discrepancies that it is made of, to be pooled."""
    # Every process would pay for it, and few runs need it.
    from recipes.evaluate.midbrain import midbrains

    if sounds.without_noisy:
        return _missing(sounds.without_noisy), {}
    impaired, normal = midbrains(config.model, config.theta)
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
