"""Auditory brainstem responses: the thresholds that a laboratory measures on its animals."""

import dataclasses
import functools
import math

import torch
from torch import Tensor

from icsim.simulation.animal import Animal, draw_anatomy
from icsim.simulation.cochlea import Subbands, drive, filter_sound, high_spontaneous, nerve
from icsim.simulation.hearing import FREQUENCIES_HZ, NORMAL_THRESHOLDS_DB_SPL
from icsim.sound import REFERENCE_PA, SAMPLE_RATE

ABR_FREQUENCIES_HZ = FREQUENCIES_HZ[2:]
"""Tones of an audiogram [Hz]: 1, 2, 4, 8 and 16 kHz. Source: arXiv 2506.03088."""

STEP_DB = 5
"""Between the levels tried [dB]. Source: arXiv 2506.03088."""

LEVELS_DB_SPL = tuple(range(0, 111, STEP_DB))
"""Levels tried [dB SPL]; an animal that hears none of them is given the next step."""


def abr_thresholds(
    animal: Animal, generator: torch.Generator | None = None, hours: float = 0.0
) -> Tensor:
    """Measure thresholds: the lowest level whose nerve response passes a criterion.

    The criterion is the response of the average healthy ear at `NORMAL_THRESHOLDS_DB_SPL`, less
    half a step because a threshold is rounded up. Fibres of high spontaneous rate alone count, so
    that no loss of the others shows. Source: Bourien et al. 2014 (gerbils lose fibres of low
    spontaneous rate without a change in the threshold of the nerve's compound potential).

    Args:
        animal: Its ear is measured; the midbrain takes no part.
        generator: Draws the measurement error: one step down, none or one step up with
            probabilities 1/4, 1/2, 1/4; none without a generator.
        hours: When it is measured [h].

    Returns:
        Thresholds at 1, 2, 4, 8 and 16 kHz [dB SPL], `(5,)`, on the CPU.
    """
    response = _responses(LEVELS_DB_SPL, animal, hours)
    audible = response >= _criterion()
    audible = torch.cat([audible, torch.ones_like(audible[:1])])
    threshold = STEP_DB * audible.int().argmax(0).float()
    if generator is not None:
        coins = torch.randint(0, 2, (2, len(threshold)), generator=generator)
        threshold = threshold + STEP_DB * (coins.sum(0) - 1)
    return threshold


def nerve_response(animal: Animal, level_db_spl: float) -> float:
    """Response of the whole nerve to tones well above threshold, as wave I grows with its fibres.

    Unlike a threshold it falls with fibres of low spontaneous rate. Source: Furman, Kujawa &
    Liberman 2013.

    Args:
        animal: Its ear is measured; the midbrain takes no part.
        level_db_spl: Of the tones, one at each of `ABR_FREQUENCIES_HZ` [dB SPL].
    """
    gain_db, ihc_db = animal.hair_cells(torch.tensor(ABR_FREQUENCIES_HZ))
    rates = [
        nerve(
            drive(_tones(frequency, (level_db_spl,)), gain_db[:, i : i + 1], ihc),
            animal.loss.synaptopathy,
        )
        for i, (frequency, ihc) in enumerate(zip(ABR_FREQUENCIES_HZ, ihc_db.split(1), strict=True))
    ]
    return torch.cat(rates, 1).mean().item()


@functools.cache
def _criterion() -> Tensor:
    """Response of the average healthy ear at its thresholds, `(5,)`."""
    anatomy = dataclasses.replace(draw_anatomy(4, 0), gain_db=(0.0,) * len(FREQUENCIES_HZ))
    levels = tuple(level - STEP_DB / 2 for level in NORMAL_THRESHOLDS_DB_SPL[2:])
    return _responses(levels, Animal(anatomy)).diagonal()


def _responses(levels_db_spl: tuple[float, ...], animal: Animal, hours: float = 0.0) -> Tensor:
    """Response of the fibres tuned to each tone, `(levels, 5)`."""
    gain_db, ihc_db = (
        part.cpu() for part in animal.hair_cells(torch.tensor(ABR_FREQUENCIES_HZ), hours)
    )
    rates = [
        high_spontaneous(drive(_tones(frequency, levels_db_spl), gain_db[:, i : i + 1], ihc))
        for i, (frequency, ihc) in enumerate(zip(ABR_FREQUENCIES_HZ, ihc_db.split(1), strict=True))
    ]
    return torch.cat(rates, 1).mean(-1)


@functools.lru_cache(maxsize=16)
def _tones(frequency_hz: float, levels_db_spl: tuple[float, ...]) -> Subbands:
    """A tone of 20 ms at each level, at its own place; 16 kHz needs twice the usual rate."""
    rate_hz = 2 * SAMPLE_RATE
    time_s = torch.arange(round(0.02 * rate_hz), dtype=torch.float64) / rate_hz
    amplitude = 2**0.5 * REFERENCE_PA * 10 ** (torch.tensor(levels_db_spl) / 20)
    tone = amplitude[:, None] * torch.sin(2 * math.pi * frequency_hz * time_s).float()
    return filter_sound(tone, torch.tensor([frequency_hz]), rate_hz)
