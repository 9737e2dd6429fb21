"""Sounds that devices are judged on together, and excerpts of a cohort's sounds."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from icsim.recording import SoundEntry
from icsim.simulation.noises import speech_shaped_noise
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, SPONTANEOUS, calibrate, level, mix
from icsim.store import Cohort

QUIET, NOISE = "quiet", "noise"
"""Names of conditions."""

KINDS = ("speech", "noisy", "music", "instrument")
"""Classes of sounds that an aid may meet; noisy speech is taken as it is, its noise a part of the
sound. Where a cohort has none of them, all but ripples and silence."""

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


def in_quiet(
    cohort: Cohort, split: str, count: int, excerpt_s: float, level_db_spl: float, seed: int
) -> tuple[Condition, list[str]]:
    """Excerpts of all classes that an aid may meet, and their classes.

    Args:
        cohort: Whose sounds.
        split: Of which it has others than of another: train, validation or test.
        count: How many excerpts.
        excerpt_s: Their length [s].
        level_db_spl: Their level [dB SPL].
        seed: Of their choice.

    Raises:
        ValueError: If there is none as long.
    """
    there = {sound.kind for sound in cohort.sounds if sound.split == split}
    kinds = [kind for kind in KINDS if kind in there] or sorted(there - {"ripple", SPONTANEOUS})
    draw = np.random.default_rng([seed, {"test": 1, "train": 3, "validation": 4}[split]])
    sounds, entries = excerpts(cohort, kinds, split, count, excerpt_s, draw)
    sounds, names = calibrate(sounds, level_db_spl), [entry.source for entry in entries]
    quiet = Condition(QUIET, level_db_spl, names, [""] * len(names), sounds, sounds)
    return quiet, [entry.kind for entry in entries]


def speech_in_noise(
    cohort: Cohort, count: int, excerpt_s: float, level_db_spl: float, snr_db: float, seed: int
) -> Condition:
    """Test speech in speech-shaped noise.

    Args:
        cohort: Whose sounds.
        count: How many excerpts.
        excerpt_s: Their length [s].
        level_db_spl: Of the speech [dB SPL].
        snr_db: Signal-to-noise ratio [dB].
        seed: Of their choice, and of the noise.

    Raises:
        ValueError: If there is none as long.
    """
    draw = np.random.default_rng([seed, 2])
    sounds, entries = excerpts(cohort, ("speech",), "test", count, excerpt_s, draw)
    clean, names = calibrate(sounds, level_db_spl), [entry.source for entry in entries]
    noise = torch.stack([speech_shaped_noise(clean.shape[1], draw) for _ in entries])
    noisy = mix(clean, noise, snr_db)
    return Condition(NOISE, level_db_spl, names, ["speech-shaped"] * len(names), clean, noisy)
