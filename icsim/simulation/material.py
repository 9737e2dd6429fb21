"""Sounds that aids are judged on: new voices, pieces and noises, which no training has met."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from icsim.excerpts import KINDS, NOISE, QUIET, Condition
from icsim.simulation.noises import NOISES, UNTRAINED_NOISES, noise
from icsim.simulation.sounds import SNR_DB, talk
from icsim.simulation.speech import FURTHER_SPEAKERS, LANGUAGES, sentences
from icsim.simulation.tones import instrument, music
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, calibrate, mix

MASKERS = ("speech-shaped", "babble", "modulated", *UNTRAINED_NOISES)
"""Noises that speech and music are put into: aids are trained on three of them, and on no other."""

MUSIC, SHORT = "music in noise", "short"
"""Further conditions: music in noise, and the beginnings of a few sounds in quiet, that the limit
is sought on."""


@dataclasses.dataclass(frozen=True)
class Material:
    """How many sounds, how long and how loud."""

    levels_db_spl: tuple[float, ...] = (50.0, 65.0, 80.0)
    """Of sounds in quiet [dB SPL]; the middle one is that of speech and music in noise too."""
    excerpts: int = 12
    """Sounds in quiet, of all classes in turn."""
    excerpt_s: float = 2.0
    """Their length [s]."""
    speakers: int = 20
    """Voices in noise, each with one sentence and one noise."""
    sentence_s: float = 2.0
    """Length of a sentence [s]."""
    scored: int = 10
    """Sentences that HASPI is computed of, in noise; half of them are scored by HASQI, in quiet."""
    pieces: int = 5
    """Pieces of music in noise, as long as the sounds in quiet."""
    snr_db: float = 5.0
    """Signal-to-noise ratio [dB]."""
    short: int = 4
    """Sounds in quiet that the limit is sought on, at the middle level."""
    short_s: float = 1.0
    """Their length [s]."""

    def __post_init__(self):
        counts = ("excerpts", "speakers", "scored", "pieces", "short")
        most = dict.fromkeys(counts, 10**9)
        most |= dict.fromkeys(("excerpt_s", "sentence_s", "short_s"), 10**7)
        for name, highest in most.items():
            value = getattr(self, name)
            if not 0 < value <= highest:
                raise ValueError(f"{name} must be above 0 and at most {highest}, got {value}")
        if not -100 <= self.snr_db <= 100:
            raise ValueError(f"snr_db must be within -100 and 100 dB, got {self.snr_db}")
        if not self.levels_db_spl or not all(-20 <= one <= 130 for one in self.levels_db_spl):
            raise ValueError(
                f"levels_db_spl must be within -20 and 130 dB SPL, got {self.levels_db_spl}"
            )
        if self.speakers > len(FURTHER_SPEAKERS):
            raise ValueError(
                f"speakers is {self.speakers}; there are {len(FURTHER_SPEAKERS)} in no training"
            )

    @property
    def middle_db_spl(self) -> float:
        """The level of what is heard at one level alone [dB SPL]."""
        return self.levels_db_spl[len(self.levels_db_spl) // 2]


def conditions(material: Material, seed: int) -> list[Condition]:
    """All sounds of a seed: in quiet at every level, speech and music in noise, and short ones.

    Speakers are `FURTHER_SPEAKERS`, their sentences those of the test split: neither is in a
    training or validation split of a cohort. The same seed gives the same sounds.
    """
    quiet, names = _quiet(material, seed)
    middle = material.middle_db_spl
    clean, voices = _speech(material, seed)
    piece_samples = _samples(material.excerpt_s)
    draw = np.random.default_rng([seed, 7, 3])
    pieces = torch.stack([music(piece_samples, draw) for _ in range(material.pieces)])
    shorter = quiet[: material.short, : _samples(material.short_s)]
    return [
        *(_in_quiet(QUIET, quiet, names, level) for level in material.levels_db_spl),
        _in_noise(NOISE, clean, voices, material, seed),
        _in_noise(MUSIC, pieces, [f"piece {i}" for i in range(len(pieces))], material, seed),
        _in_quiet(SHORT, shorter, names[: material.short], middle),
    ]


def _in_quiet(name: str, sounds: Tensor, names: list[str], level_db_spl: float) -> Condition:
    calibrated = calibrate(sounds, level_db_spl)
    return Condition(name, level_db_spl, names, [""] * len(names), calibrated, calibrated)


def _in_noise(
    name: str, sounds: Tensor, names: list[str], material: Material, seed: int
) -> Condition:
    clean = calibrate(sounds, material.middle_db_spl)
    kinds = [MASKERS[i % len(MASKERS)] for i in range(len(clean))]
    draw = np.random.default_rng([seed, 7, 4, len(clean)])
    talkers = _talkers(seed)
    maskers = [noise(kind, clean.shape[1], draw, talkers) for kind in kinds]
    noisy = mix(clean, torch.stack(maskers), material.snr_db)
    return Condition(name, material.middle_db_spl, names, kinds, clean, noisy)


def _quiet(material: Material, seed: int) -> tuple[Tensor, list[str]]:
    """Sounds of all classes in turn `(B, T)`, any amplitude, and their names."""
    draw, samples = np.random.default_rng([seed, 7, 1]), _samples(material.excerpt_s)
    voices, texts = _voices(draw), _texts(draw)
    sounds, names = [], []
    for i in range(material.excerpts):
        kind = KINDS[i % len(KINDS)]
        if kind in ("speech", "noisy"):
            sound = talk(voices[i % len(voices)], samples, texts, draw)
        else:
            sound = {"music": music, "instrument": instrument}[kind](samples, draw)
        if kind == "noisy":
            masker = noise(str(draw.choice(NOISES)), samples, draw, _talkers(seed))
            sound = mix(sound, masker, float(draw.uniform(*SNR_DB)))
        sounds.append(calibrate(sound, 0.0))
        names.append(f"{kind} {i // len(KINDS)}")
    return torch.stack(sounds), names


def _speech(material: Material, seed: int) -> tuple[Tensor, list[str]]:
    """A sentence of each voice, `(B, T)`, and the voices."""
    draw, samples = np.random.default_rng([seed, 7, 2]), _samples(material.sentence_s)
    voices, texts = _voices(draw), _texts(draw)
    chosen = voices[: material.speakers]
    return torch.stack([talk(voice, samples, texts, draw) for voice in chosen]), chosen


def _talkers(seed: int) -> list[Tensor]:
    """Six voices for babble, `(T,)` each, whose sentences nobody else says."""
    draw = np.random.default_rng([seed, 7, 5])
    texts = _texts(draw)
    return [talk(voice, 4 * round(SAMPLE_RATE), texts, draw) for voice in _voices(draw)[:6]]


def _voices(draw: np.random.Generator) -> list[str]:
    """All further speakers in any order, each with an accent."""
    accents = np.resize(draw.permutation(list(LANGUAGES)), len(FURTHER_SPEAKERS))
    speakers = draw.permutation(FURTHER_SPEAKERS)
    return [f"{accent}+{name}" for accent, name in zip(accents, speakers, strict=True)]


def _texts(draw: np.random.Generator) -> dict:
    """Sentences of each language that no training or validation split says."""
    return {language: sentences(language, draw, 2, 3) for language in sorted({*LANGUAGES.values()})}


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
