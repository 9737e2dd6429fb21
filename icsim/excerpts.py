"""Sounds that devices are judged on together, and excerpts of a cohort's sounds."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from icsim.recording import SoundEntry
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, level
from icsim.store import Cohort

PLACES = 4
"""Of a sound that are looked at, so that no pause is taken (chosen here)."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """Sounds that are judged together, at one level."""

    name: str
    level_db_spl: float
    """Of the clean sounds [dB SPL]."""
    sounds: list[str]
    """Source of each: a voice, a piece."""
    noises: list[str]
    """Noise of each; empty strings in quiet."""
    clean: Tensor
    """Without the noise [Pa], `(B, T)`."""
    noisy: Tensor
    """With it [Pa], `(B, T)`; the same tensor in quiet."""

    def first(self, count: int) -> "Condition":
        """Its first sounds."""
        return dataclasses.replace(
            self,
            sounds=self.sounds[:count],
            noises=self.noises[:count],
            clean=self.clean[:count],
            noisy=self.noisy[:count],
        )

    @property
    def columns(self) -> dict[str, object]:
        """What tells its rows apart in a table of results (`evaluation.tidy`)."""
        return {
            "condition": self.name,
            "level_db_spl": self.level_db_spl,
            "noise": self.noises,
            "sound": self.sounds,
            "excerpt": [str(n + 1) for n in range(len(self.sounds))],
        }


def excerpts(
    cohort: Cohort,
    kinds: Sequence[str],
    split: str,
    count: int,
    excerpt_s: float,
    draw: np.random.Generator,
) -> tuple[Tensor, list[SoundEntry]]:
    """Excerpts of sounds of a split, of any amplitude, and the sounds that they are from.

    Kinds take turns, and so do the sounds of a kind, in an order that is drawn: none is heard twice
    while there is another.

    Args:
        cohort: Whose sounds.
        kinds: Which of them.
        split: train, validation or test.
        count: How many excerpts, B.
        excerpt_s: Their length [s], cut to whole response bins.
        draw: Of order and places.

    Returns:
        Pressure [Pa], `(B, T)`, and B entries.

    Raises:
        ValueError: If there is no sound as long.
    """
    samples = round(excerpt_s * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    turns = []
    for kind in kinds:
        there = [
            sound
            for sound in cohort.sounds
            if sound.split == split and sound.kind == kind and sound.samples >= samples
        ]
        if there:
            turns.append(itertools.cycle([there[i] for i in draw.permutation(len(there))]))
    if not turns:
        raise ValueError(
            f"{cohort.path}: no {split} sound of {', '.join(kinds) or 'a class that aids hear'} "
            f"has {excerpt_s:g} s; give shorter excerpts (--excerpt_s)"
        )
    chosen = [next(turns[i % len(turns)]) for i in range(count)]
    return torch.stack([_loudest(cohort, sound, samples, draw) for sound in chosen]), chosen


def _loudest(cohort: Cohort, sound: SoundEntry, samples: int, draw: np.random.Generator) -> Tensor:
    pressure = cohort.pressure(sound.index)
    starts = draw.integers(len(pressure) - samples + 1, size=PLACES)
    return max((pressure[s : s + samples] for s in starts), key=lambda part: level(part).item())
