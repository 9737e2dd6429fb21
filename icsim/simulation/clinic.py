"""What a clinic measures of a listener, on simulated animals: thresholds, the nerve's response, and
what the midbrain can tell apart.

Two sounds are told apart by the expected counts of all channels, beside their variance. What counts
as telling them apart is what the average healthy animal reaches at a normal threshold.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from icsim.sound import BIN_SAMPLES, REFERENCE_PA, SAMPLE_RATE, calibrate, mix

from .abr import ABR_FREQUENCIES_HZ, abr_thresholds, nerve_response
from .animal import Animal, draw_anatomy
from .cochlea import Subbands, filter_sound
from .noises import noise
from .sounds import talk
from .speech import FURTHER_SPEAKERS, LANGUAGES, sentences

THRESHOLDS = tuple(f"threshold {hz / 1000:g} kHz [dB SPL]" for hz in ABR_FREQUENCIES_HZ)

ABR, TONE, GAP, SPEECH = (
    "nerve response at 80 dB SPL [dB]",
    "tone in noise [dB SNR]",
    "gap in noise [log2 ms]",
    "speech in noise [dB SNR]",
)

TESTS = (*THRESHOLDS, ABR, TONE, GAP, SPEECH)
"""Names of all tests."""

ERRORS = {**dict.fromkeys(THRESHOLDS, 3.5), ABR: 1.0, TONE: 1.5, GAP: 0.3, SPEECH: 1.0}
"""Standard deviation of what a clinic measures around what is true (chosen here; of thresholds,
what the error of `abr_thresholds` is)."""

NORMAL = {TONE: -10.0, GAP: 2.0, SPEECH: -6.0}
"""What the average healthy animal reaches: a gap of 4 ms (chosen here)."""

TRIED = {
    TONE: tuple(range(-20, 21, 5)),
    GAP: tuple(range(7)),
    SPEECH: tuple(range(-12, 19, 6)),
}
"""Where each test is tried: signal-to-noise ratios [dB], and logarithms of gaps [ms]."""

LEVEL_DB_SPL, LENGTH_S = 70.0, 0.5


@torch.no_grad()
def measured(animal: Animal, generator: torch.Generator | None = None) -> dict[str, float]:
    """All tests of one animal, with a clinic's errors if a generator is given."""
    tests = dict(zip(THRESHOLDS, abr_thresholds(animal, generator).tolist(), strict=True))
    healthy = nerve_response(Animal(animal.anatomy), 80.0)
    tests[ABR] = 20 * math.log10(max(nerve_response(animal, 80.0) / healthy, 1e-3))
    for name in NORMAL:
        values = [_discriminability(animal, *pair) for pair in _pairs(name)]
        tests[name] = _reached(TRIED[name], values, _criterion(name))
    if generator is not None:
        for name in (ABR, TONE, GAP, SPEECH):
            tests[name] += ERRORS[name] * torch.randn((), generator=generator).item()
    return tests


def _discriminability(animal: Animal, one: Subbands, other: Subbands) -> float:
    """How far the counts of two sounds lie apart in units of their variance, a channel."""
    count = torch.arange(5.0)[:, None]
    means, variances = [], []
    for sound in (one, other):
        probability = animal.count_probabilities(sound)
        mean = (probability * count).sum(2)
        means.append(mean)
        variances.append((probability * count**2).sum(2) - mean**2)
    spread = (variances[0] + variances[1]) / 2 + 1e-3
    alive = animal.alive.bool()
    return ((means[0] - means[1]) ** 2 / spread)[:, alive].mean(1).sum().item()


def _reached(tried: tuple[float, ...], values: list[float], criterion: float) -> float:
    """Where, on the way from hard to easy, the criterion is passed; the next step if never."""
    logs = [math.log(max(value, 1e-9) / criterion) for value in values]
    step = tried[1] - tried[0]
    for place, value in enumerate(logs):
        if value >= 0:
            if place == 0:
                return float(tried[0])
            before = logs[place - 1]
            return tried[place] - step * value / (value - before)
    return float(tried[-1] + step)


@functools.cache
def _criterion(name: str) -> float:
    """What the average healthy animal tells apart at its threshold."""
    anatomy = draw_anatomy(64, 0, coverage_spread=0.0)
    values = [_discriminability(Animal(anatomy), *pair) for pair in _pairs(name)]
    return math.exp(float(np.interp(NORMAL[name], TRIED[name], np.log(np.maximum(values, 1e-9)))))


@functools.cache
def _pairs(name: str) -> list[tuple[Subbands, Subbands]]:
    """The two sounds of each difficulty of a test, the same for all animals."""
    draw = np.random.default_rng(20)
    samples = round(LENGTH_S * SAMPLE_RATE) // BIN_SAMPLES * BIN_SAMPLES
    masker = calibrate(noise("white", samples, draw), LEVEL_DB_SPL)
    return [
        (_subbands(one), _subbands(other))
        for one, other in (_sounds(name, value, masker) for value in TRIED[name])
    ]


def _sounds(name: str, value: float, masker: Tensor) -> tuple[Tensor, Tensor]:
    """Two sounds that are to be told apart [Pa], `(T,)` each."""
    time_s = torch.arange(len(masker)) / SAMPLE_RATE
    if name == TONE:
        level = LEVEL_DB_SPL + value - 15
        amplitude = 2**0.5 * REFERENCE_PA * 10 ** (level / 20)
        return masker + amplitude * torch.sin(2 * math.pi * 4000 * time_s), masker
    if name == GAP:
        away = (time_s - LENGTH_S / 2).abs()
        return masker * (away > 2**value / 2000), masker
    first, second = (_spoken(place, len(masker)) for place in range(2))
    speech_shaped = noise("speech-shaped", len(masker), np.random.default_rng(21))
    one, other = (
        mix(calibrate(each, LEVEL_DB_SPL), speech_shaped, value) for each in (first, second)
    )
    return one, other


def _spoken(place: int, samples: int) -> Tensor:
    """One voice saying one thing or another, `(T,)`."""
    draw = np.random.default_rng([22, place])
    texts = {
        language: sentences(language, draw, 2, 3) for language in sorted({*LANGUAGES.values()})
    }
    accent = sorted(LANGUAGES)[0]
    return talk(f"{accent}+{FURTHER_SPEAKERS[0]}", samples, texts, draw)


def _subbands(sound: Tensor) -> Subbands:
    return filter_sound(sound[None])
