"""Noises that mask speech: stationary, modulated, babble, and two that no aid is trained on."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from icsim.sound import SAMPLE_RATE, calibrate

NOISES = ("speech-shaped", "babble", "white", "modulated")
"""Those in cohorts and in the training of aids."""

UNTRAINED_NOISES = ("engine", "dishes")
"""Those of everyday life that are in no training: for judgements."""

_LTASS_HZ = (
    *(63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600),
    *(2000, 2500, 3150, 4000, 5000, 6300, 8000, 10000, 12500),
)
_LTASS_DB = (
    *(38.6, 43.5, 54.4, 57.7, 56.8, 60.2, 60.3, 59.0, 62.1, 62.1, 60.5, 56.8, 53.7, 53.0, 52.0),
    *(48.7, 48.1, 46.8, 45.6, 44.5, 44.3, 43.7, 43.4, 41.3),
)
"""Long-term average speech spectrum in third octaves [dB]. Source: Byrne et al. 1994, JASA 96."""


def noise(
    kind: str,
    samples: int,
    generator: np.random.Generator,
    talkers: Sequence[Tensor] = (),
) -> Tensor:
    """Noise of a kind in `NOISES` or `UNTRAINED_NOISES`.

    Args:
        kind: speech-shaped, white, modulated (speech-shaped, with a speech-like envelope),
            babble (needs `talkers`), engine, or dishes.
        samples: Length at `SAMPLE_RATE`.
        generator: Random numbers.
        talkers: Speech of several voices, each `(T,)`.

    Returns:
        `(samples,)`, in float32.

    >>> noise("modulated", 1000, np.random.default_rng(0)).shape
    torch.Size([1000])
    """
    if kind == "white":
        return torch.from_numpy(generator.standard_normal(samples, dtype=np.float32))
    if kind == "speech-shaped":
        return speech_shaped_noise(samples, generator)
    if kind == "modulated":
        return modulated_noise(samples, generator)
    if kind == "babble":
        return babble(talkers, samples, generator)
    if kind == "engine":
        return engine_noise(samples, generator)
    if kind == "dishes":
        return dishes_noise(samples, generator)
    there = ", ".join(NOISES + UNTRAINED_NOISES)
    raise ValueError(f"no noise is called {kind!r}; there are {there}")


def speech_shaped_noise(samples: int, generator: np.random.Generator) -> Tensor:
    """Stationary noise with the long-term average spectrum of speech, `(samples,)`."""
    spectrum = np.fft.rfft(generator.standard_normal(samples))
    hz = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 1)
    # A third octave grows with frequency, so that density falls 3 dB an octave below band level.
    density_db = np.array(_LTASS_DB) - 10 * np.log10(_LTASS_HZ)
    shape = 10 ** (np.interp(np.log(hz), np.log(_LTASS_HZ), density_db) / 20)
    shape[hz < _LTASS_HZ[0] / 2] = 0
    return torch.from_numpy(np.fft.irfft(spectrum * shape, samples)).float()


def modulated_noise(samples: int, generator: np.random.Generator) -> Tensor:
    """Speech-shaped noise that rises and falls at syllable rates (10 dB SD), `(samples,)`."""
    envelope_db = wander(samples, 8.0, lambda n: generator.normal(0, 10, n))
    gain = torch.from_numpy(10 ** (np.clip(envelope_db, -30, 20) / 20)).float()
    return speech_shaped_noise(samples, generator) * gain


def babble(
    talkers: Sequence[Tensor], samples: int, generator: np.random.Generator, voices: int = 6
) -> Tensor:
    """Several voices at once, equally loud, each begun somewhere and repeated as needed.

    Args:
        talkers: Speech of each voice, each `(T,)`; all are used before one is used again.
        samples: Length at `SAMPLE_RATE`.
        generator: Draws the voices and where they begin.
        voices: How many speak at once.

    Returns:
        `(samples,)`.

    Raises:
        ValueError: If there is no talker, or one is silent.
    """
    if not talkers:
        raise ValueError("babble needs speech: give at least one talker")
    order = np.resize(generator.permutation(len(talkers)), voices)
    total = torch.zeros(samples)
    for i in order.tolist():
        talker = calibrate(talkers[i], 0.0)
        start = int(generator.integers(len(talker)))
        total += talker[(start + torch.arange(samples)) % len(talker)]
    return total


def engine_noise(samples: int, generator: np.random.Generator) -> Tensor:
    """A running engine: harmonics of a wandering firing rate that throb, and some rumble.

    Rate 25 to 60 Hz, wandering by 5 % (SD) a second; harmonics fall by 6 dB an octave, each by a
    draw of its own (6 dB SD), and swell with every second firing; speech-shaped noise lies 10 dB
    below. Of what is audible much is tonal, which no noise of `NOISES` is (chosen here).

    Returns:
        `(samples,)`.
    """
    rate_hz = generator.uniform(25, 60) * np.exp(
        wander(samples, 2.0, lambda n: generator.normal(0, 0.05, n))
    )
    phase = 2 * np.pi * np.cumsum(rate_hz) / SAMPLE_RATE
    total = np.zeros(samples)
    for harmonic in range(1, int(8000 / rate_hz.max()) + 1):
        amplitude = 10 ** (generator.normal(0, 6) / 20) / harmonic
        total += amplitude * np.sin(harmonic * phase + generator.uniform(0, 2 * np.pi))
    total *= 1 + 0.5 * np.sin(phase / 2 + generator.uniform(0, 2 * np.pi))
    rumble = calibrate(speech_shaped_noise(samples, generator), -10.0)
    return calibrate(torch.from_numpy(total).float(), 0.0) + rumble


def dishes_noise(samples: int, generator: np.random.Generator) -> Tensor:
    """Clattering dishes: six blows a second on average, each a few resonances that die away.

    A blow rings at 3 to 6 frequencies of 1 to 9 kHz for 10 to 100 ms (to 1/e), and blows differ in
    level by 8 dB (SD). Sudden and sparse, which no noise of `NOISES` is (chosen here).

    Returns:
        `(samples,)`.
    """
    seconds = samples / SAMPLE_RATE
    # One at least, in the first half: silence is no noise.
    blows = np.append(generator.uniform(0, seconds, generator.poisson(6 * seconds)), seconds / 4)
    time_s = np.arange(samples) / SAMPLE_RATE
    total = np.zeros(samples)
    for start_s in blows:
        after_s = time_s[round(start_s * SAMPLE_RATE) :] - start_s
        loudness = 10 ** (generator.normal(0, 8) / 20)
        for _ in range(generator.integers(3, 7)):
            frequency_hz = np.exp(generator.uniform(np.log(1000), np.log(9000)))
            ringing_s = np.exp(generator.uniform(np.log(0.01), np.log(0.1)))
            ring = np.exp(-after_s / ringing_s) * np.sin(2 * np.pi * frequency_hz * after_s)
            total[samples - len(after_s) :] += loudness * generator.uniform(0.3, 1) * ring
    return torch.from_numpy(total).float()


def wander(samples: int, rate_hz: float, draw: Callable[[int], np.ndarray]) -> np.ndarray:
    """Straight lines between random values that are reached `rate_hz` times a second.

    Args:
        samples: Length at `SAMPLE_RATE`.
        rate_hz: Values a second.
        draw: Gives as many values as it is asked for.

    Returns:
        `(samples,)`.
    """
    steps = np.arange(samples) * rate_hz / SAMPLE_RATE
    return np.interp(steps, np.arange(int(steps[-1]) + 2), draw(int(steps[-1]) + 2))
