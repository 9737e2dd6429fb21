"""Noises that mask speech: stationary, modulated, babble."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from icsim.sound import SAMPLE_RATE, calibrate

NOISES = ("speech-shaped", "babble", "white", "modulated")

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
    """Noise of a kind in `NOISES`.

    Args:
        kind: speech-shaped, white, modulated (speech-shaped, with a speech-like envelope), or
            babble (needs `talkers`).
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
    raise ValueError(f"no noise is called {kind!r}; there are {', '.join(NOISES)}")


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
    for i in order:
        talker = calibrate(talkers[i], 0.0)
        start = int(generator.integers(len(talker)))
        total += talker[(start + torch.arange(samples)) % len(talker)]
    return total


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
