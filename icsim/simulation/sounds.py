"""Sounds that need no files: speech, processed and noisy speech, music, ripples, instruments.

Every function that draws takes a generator and is repeatable; amplitudes are linear until
`calibrate` sets a level. Constants without a source were chosen here, to cover what is heard.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from scipy.signal import lfilter
from torch import Tensor
from tqdm import tqdm

from icsim.simulation import speech
from icsim.simulation.noises import NOISES, noise
from icsim.simulation.tones import faded, instrument, music, wandering_ripple
from icsim.sound import SAMPLE_RATE, Sound, calibrate, mix, resample

SPLITS = ("train", "validation", "test")
_TONES = {"music": music, "ripple": wandering_ripple, "instrument": instrument}
KINDS = ("speech", "processed", "noisy", *_TONES)

SEGMENT_S = (4.0, 10.0)
"""Shortest and longest sound of training and validation [s], where enough is asked for."""

LEVEL_DB_SPL = (40.0, 90.0)
"""Levels are uniform over this range [dB SPL]."""

PROCESSED_DB_SPL = (40.0, 100.0)
"""The same for processed speech, which an aid makes louder [dB SPL]."""

SNR_DB = (-5.0, 20.0)
"""Signal-to-noise ratios of noisy speech are uniform over this range [dB]."""


def embedded_sounds(
    duration_s: Mapping[str, float] | Sequence[float],
    seed: int,
    max_s: float = 30.0,
    progress: bool = False,
) -> list[Sound]:
    """Sounds of every kind in equal shares, from different sources in each split.

    Voices, pieces and noises are heard in one split only, and no sentence twice. Where less than
    4 s of a kind are asked for, its one sound is as short as that.

    Args:
        duration_s: Total of each split [s], by name or in the order of `SPLITS`; 0 leaves it out.
        seed: Everything follows from it.
        max_s: Longest sound [s]; test sounds come as near to it as the total allows.
        progress: Show a progress bar.

    Returns:
        The sounds, split by split and kind by kind, at 40–90 dB SPL (processed: 40–100).

    Raises:
        ValueError: If a duration is negative, not finite, or too short for all kinds.
    """
    totals = durations(duration_s, max_s)
    for split, total_s in totals.items():
        if 0 < total_s < len(KINDS):
            raise ValueError(
                f"{split}: {total_s} s; ask for {len(KINDS)} s or more, a second of each kind, or 0"
            )
    sounds = []
    with tqdm(total=sum(totals.values()), unit="s", unit_scale=True, disable=not progress) as bar:
        for split, total_s in totals.items():
            for sound in _split(split, total_s, seed, max_s) if total_s else ():
                sounds.append(sound)
                bar.update(min(len(sound.pressure) / SAMPLE_RATE, bar.total - bar.n))
    return sounds


def durations(duration_s: Mapping[str, float] | Sequence[float], max_s: float) -> dict[str, float]:
    """The total of each split [s] by name, checked.

    >>> durations((60, 10, 20), max_s=30)
    {'train': 60.0, 'validation': 10.0, 'test': 20.0}
    """
    if not isinstance(duration_s, Mapping):
        if len(duration_s) != len(SPLITS):
            raise ValueError(f"{duration_s}: give a duration for each of {', '.join(SPLITS)}")
        duration_s = dict(zip(SPLITS, duration_s, strict=True))
    if unknown := set(duration_s) - set(SPLITS):
        raise ValueError(f"no split is called {sorted(unknown)}; there are {', '.join(SPLITS)}")
    totals = {split: float(duration_s.get(split, 0)) for split in SPLITS}
    if not all(0 <= total < math.inf for total in totals.values()) or not any(totals.values()):
        raise ValueError(f"durations {totals} [s]: none may be negative or infinite, nor all zero")
    if not max_s >= 1:
        raise ValueError(f"max_s is {max_s}; sounds must be allowed to last a second")
    return totals


def lengths(total_s: float, split: str, max_s: float, generator: np.random.Generator) -> list[int]:
    """Lengths of the sounds [samples] that make up a total; equal and long in the test.

    >>> lengths(60.0, "test", 30.0, np.random.default_rng(0))
    [732422, 732422]
    """
    if split == "test":
        count, spread_s = math.ceil(total_s / max_s), 0.0
    else:
        high = min(SEGMENT_S[1], max_s)
        low = min(SEGMENT_S[0], high / 2)
        count = max(math.ceil(total_s / high), round(2 * total_s / (low + high)))
        spread_s = max(0.0, min(high - total_s / count, total_s / count - low))
    deviation = generator.uniform(-1, 1, count)
    deviation -= deviation.mean()
    deviation *= spread_s / max(np.abs(deviation).max(), 1.0)
    return [round(s * SAMPLE_RATE) for s in total_s / count + deviation]


def levels(
    count: int, low_db_spl: float, high_db_spl: float, generator: np.random.Generator
) -> list[float]:
    """Levels [dB SPL] uniform over a range, one in each of `count` equal parts, shuffled."""
    steps = (generator.permutation(count) + generator.uniform(size=count)) / count
    return [float(low_db_spl + (high_db_spl - low_db_spl) * step) for step in steps]


def masked(kind: str, count: int, generator: np.random.Generator) -> np.ndarray:
    """Which of `count` sounds of a kind are put into noise, `(count,)`.

    All noisy ones, and half of the processed ones: an aid processes noise as well.

    >>> int(masked("processed", 10, np.random.default_rng(0)).sum())
    5
    """
    if kind == "processed":
        return (generator.permutation(count) + generator.integers(2)) % 2 == 0
    return np.full(count, kind == "noisy")


def speakers(split: str, seed: int) -> list[str]:
    """Voices of a split, `accent+speaker`; no speaker is in two splits.

    Three in five speakers are for training, one in five each for validation and test.
    """
    generator = np.random.default_rng(seed)
    mine = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}[split]
    # Low and high voices are dealt apart, so that every split has both.
    dealt = [generator.permutation(group) for group in (speech.LOW_SPEAKERS, speech.HIGH_SPEAKERS)]
    names = [name for group in dealt for i, name in enumerate(group) if i % 5 in mine]
    accents = np.resize(generator.permutation(list(speech.LANGUAGES)), len(names))
    return [f"{accent}+{name}" for accent, name in zip(accents, names, strict=True)]


def _split(split: str, total_s: float, seed: int, max_s: float) -> Iterator[Sound]:
    part = SPLITS.index(split)
    generator = np.random.default_rng([seed, part])
    texts = {
        language: speech.sentences(language, generator, part, len(SPLITS))
        for language in sorted(set(speech.LANGUAGES.values()))
    }
    voices = generator.permutation(speakers(split, seed)).tolist()
    babblers = [talk(v, 8 * round(SAMPLE_RATE), texts, generator) for v in voices[:6]]
    turns = itertools.cycle(voices)
    for kind in KINDS:
        samples = lengths(total_s / len(KINDS), split, max_s, generator)
        maskers = np.resize(generator.permutation(NOISES), len(samples))
        bounds = PROCESSED_DB_SPL if kind == "processed" else LEVEL_DB_SPL
        loudness = levels(len(samples), *bounds, generator)
        in_noise = masked(kind, len(samples), generator)
        for i, (count, level_db_spl) in enumerate(zip(samples, loudness, strict=True)):
            if kind in _TONES:
                source, sound = f"{kind} {seed}-{split}-{i}", _TONES[kind](count, generator)
            else:
                voice = next(turns)
                source, sound = f"voice {voice}", talk(voice, count, texts, generator)
            if in_noise[i]:
                masker = noise(maskers[i], count, generator, babblers)
                sound = mix(sound, masker, float(generator.uniform(*SNR_DB)))
            if kind == "processed":
                sound = processed(sound, generator)
            name = f"{split}-{kind}-{i:04d}"
            yield Sound(name, kind, source, split, calibrate(sound, level_db_spl))


def talk(
    voice: str, samples: int, texts: Mapping[str, Iterator[str]], generator: np.random.Generator
) -> Tensor:
    """Sentence after sentence in one voice, with pauses; sentences differ in level by 3 dB (SD).

    Args:
        voice: As `speech.speak` takes it.
        samples: Length at `SAMPLE_RATE`.
        texts: Sentences of each language.
        generator: Draws rate, pitch, intonation, pauses and levels.

    Returns:
        `(samples,)`, in float32.
    """
    manner = [int(generator.integers(*bounds)) for bounds in ((130, 210), (30, 70), (30, 80))]
    text = texts[speech.LANGUAGES[voice.split("+")[0]]]
    pieces, have_s, rate_hz = [], 0.0, 22050.0
    while have_s < samples / SAMPLE_RATE + 0.1:
        spoken, rate_hz = speech.speak(next(text), voice, *manner)
        pause = torch.zeros(round(generator.uniform(0.1, 0.6) * rate_hz))
        pieces += [spoken * 10 ** (generator.normal(0, 3) / 20), pause]
        have_s += (len(spoken) + len(pause)) / rate_hz
    return faded(resample(torch.cat(pieces), rate_hz)[:samples])


def processed(sound: Tensor, generator: np.random.Generator) -> Tensor:
    """Shape and compress a sound as a hearing aid might: smooth gains of up to 30 dB, fast.

    Args:
        sound: Any linear amplitude, `(T,)`.
        generator: Draws the gains, the compression of each band and its speed.

    Returns:
        `(T,)`.
    """
    frame, hop = 256, 64  # 10 ms, 2.6 ms
    window = torch.hann_window(frame)
    spectrum = torch.stft(sound, frame, hop, window=window, return_complex=True)
    hz = np.maximum(np.fft.rfftfreq(frame, 1 / SAMPLE_RATE), 1)
    centres = np.geomspace(200, 10000, 9)
    # Each frequency's share in the bands: triangles over the logarithm of frequency.
    share = np.stack([np.interp(np.log(hz), np.log(centres), row) for row in np.eye(9)])
    power = share @ spectrum.abs().square().numpy()
    level_db = 10 * np.log10(power + 1e-6 * power.mean() + 1e-30)
    step_s = generator.uniform(0.003, 0.03)
    keep = math.exp(-hop / SAMPLE_RATE / step_s)
    level_db = lfilter([1 - keep], [1, -keep], level_db, zi=keep * level_db[:, :1])[0]
    gain_db = np.interp(np.arange(9), (0, 2, 4, 6, 8), generator.uniform(0, 25, 5))[:, None]
    slope = 1 - 1 / np.interp(np.arange(9), (0, 4, 8), generator.uniform(1, 3, 3))[:, None]
    loud_db = 10 * np.log10(power.mean(1, keepdims=True) + 1e-30)
    gain_db = np.clip(gain_db - slope * (level_db - loud_db), -10, 30)
    gain = torch.from_numpy(10 ** (share.T @ gain_db / 20)).float()
    return torch.istft(spectrum * gain, frame, hop, window=window, length=len(sound))
