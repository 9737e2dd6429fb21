"""Sounds made of tones: moving ripples, single instruments, music."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from icsim.simulation.noises import wander
from icsim.sound import SAMPLE_RATE

_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10))
"""Major, natural minor and Dorian [semitones]."""


def ripple(
    velocity_hz: float | np.ndarray,
    density: float | np.ndarray,
    samples: int,
    generator: np.random.Generator,
    depth_db: float = 30.0,
) -> Tensor:
    """Dynamic moving ripple: a sinusoid over log frequency and time, in decibels, on many tones.

    Source of the form: Escabí & Schreiner 2002, J. Neurosci. 22.

    Args:
        velocity_hz: Modulations a second (negative moves up in frequency), a scalar or
            `(samples,)`.
        density: Modulations an octave, a scalar or `(samples,)`.
        samples: Length at `SAMPLE_RATE`.
        generator: Draws the phases of the tones and of the ripple.
        depth_db: From the highest to the lowest point of the envelope [dB].

    Returns:
        `(samples,)`, in float32: 30 tones an octave from 250 Hz to 11.3 kHz.
    """
    turns = np.cumsum(np.broadcast_to(velocity_hz, samples)) / SAMPLE_RATE
    drift = torch.from_numpy(turns + generator.uniform())
    densities = torch.from_numpy(np.array(np.broadcast_to(density, samples), float))
    time_s = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
    nepers = depth_db / 2 / 20 * math.log(10)
    total = torch.zeros(samples)
    for octave in np.arange(0, 5.5, 1 / 30):
        phase = _cycle(drift + octave * densities)
        carrier = _cycle(250 * 2**octave * time_s + generator.uniform())
        total += torch.exp(nepers * torch.sin(phase)) * torch.sin(carrier)
    return faded(total)


def wandering_ripple(samples: int, generator: np.random.Generator) -> Tensor:
    """Ripple whose velocity and density wander over ±32 Hz and 0–4 an octave, `(samples,)`."""
    velocity_hz = wander(samples, 0.5, lambda n: generator.uniform(-32, 32, n))
    density = wander(samples, 0.5, lambda n: generator.uniform(0, 4, n))
    return ripple(velocity_hz, density, samples, generator)


def _cycle(turns: Tensor) -> Tensor:
    """Phase [rad] in float32, reduced before precision is lost."""
    return (2 * math.pi * (turns - turns.floor())).float()


@dataclasses.dataclass(frozen=True)
class Timbre:
    """What makes a note sound like an instrument."""

    amplitudes: np.ndarray
    """Of each harmonic."""
    stretch: float
    """Inharmonicity: harmonic h lies at h·√(1 + stretch·h²), as in a stiff string."""
    attack_s: float
    decay_s: float
    """Time constant of the first harmonic; higher ones are faster. Infinite: sustained."""
    vibrato_hz: float
    vibrato_cents: float
    breath: float
    """Noise, relative to the tone."""


def timbre(generator: np.random.Generator) -> Timbre:
    """A random instrument: plucked, struck, bowed or blown."""
    h = np.arange(1, 17)
    family = generator.choice(["plucked", "struck", "bowed", "blown"])
    amplitudes = h ** -generator.uniform(0.6, 2.0) * generator.uniform(0.3, 1, len(h))
    if family == "blown" and generator.uniform() < 0.5:
        amplitudes[1::2] *= 0.05  # a closed pipe has odd harmonics
    sustained = family in ("bowed", "blown")
    return Timbre(
        amplitudes,
        stretch={"plucked": 2e-4, "struck": generator.uniform(0, 0.05)}.get(family, 0.0),
        attack_s=generator.uniform(0.02, 0.12) if sustained else generator.uniform(0.001, 0.008),
        decay_s=math.inf if sustained else generator.uniform(0.15, 1.5),
        vibrato_hz=generator.uniform(4, 7),
        vibrato_cents=generator.uniform(0, 40) if sustained else 0.0,
        breath=generator.uniform(0.002, 0.02) if family == "blown" else 0.0,
    )


def note(
    frequency_hz: float, duration_s: float, tone: Timbre, generator: np.random.Generator
) -> np.ndarray:
    """One note, `(T,)`, released within its last 30 ms; at most 11.5 kHz."""
    time_s = np.arange(round(duration_s * SAMPLE_RATE)) / SAMPLE_RATE
    sway = np.sin(2 * np.pi * (tone.vibrato_hz * time_s + generator.uniform()))
    bend = 1 + (2 ** (tone.vibrato_cents / 1200) - 1) * sway * np.minimum(time_s / 0.3, 1)
    phase = 2 * np.pi * frequency_hz * np.cumsum(bend) / SAMPLE_RATE
    total = tone.breath * generator.standard_normal(len(time_s), dtype=np.float32)
    for h, amplitude in enumerate(tone.amplitudes, start=1):
        ratio = h * math.sqrt(1 + tone.stretch * h**2)
        if ratio * frequency_hz > 11500:
            break
        wave = np.sin((ratio * phase % (2 * np.pi)).astype(np.float32))
        decay = 1.0 if math.isinf(tone.decay_s) else np.exp(-time_s * math.sqrt(h) / tone.decay_s)
        total = total + amplitude * decay * wave
    return total * np.minimum(1, np.minimum(time_s / tone.attack_s, (duration_s - time_s) / 0.03))


def instrument(samples: int, generator: np.random.Generator) -> Tensor:
    """Single notes of one instrument over three octaves, with rests, `(samples,)`."""
    tone, score, start_s = timbre(generator), [], 0.0
    lowest_hz = generator.uniform(80, 400)
    while start_s < samples / SAMPLE_RATE:
        duration_s = float(generator.uniform(0.25, 1.5))
        frequency_hz = lowest_hz * 2 ** (generator.integers(0, 37) / 12)
        score.append((start_s, duration_s, frequency_hz, generator.uniform(-12, 0), tone))
        start_s += duration_s + float(generator.uniform(0, 0.3))
    return _play(score, samples, generator)


def music(samples: int, generator: np.random.Generator) -> Tensor:
    """A melody over chords and a bass, each with a timbre of its own, `(samples,)`."""
    beat_s, scale = 60 / generator.uniform(70, 150), _SCALES[generator.integers(len(_SCALES))]
    tonic_hz = generator.uniform(110, 220)
    lead, harmony, bass = (timbre(generator) for _ in range(3))
    lead_db, harmony_db, bass_db = generator.uniform(-10, 0, 3)

    def pitch_hz(degree: int) -> float:
        return tonic_hz * 2 ** (degree // 7 + scale[degree % 7] / 12)

    score, bar_s, degree = [], 0.0, 7
    while bar_s < samples / SAMPLE_RATE:
        root = int(generator.choice([0, 3, 4, 5, 1]))
        beats = (0.0, 2.0) if generator.uniform() < 0.5 else (0.0, 1.0, 2.0, 3.0)
        for beat in beats:
            start_s, hold_s = bar_s + beat * beat_s, 4 / len(beats) * beat_s
            for step in (0, 2, 4):
                score.append((start_s, hold_s, pitch_hz(root + step), harmony_db - 8, harmony))
            score.append((start_s, hold_s, pitch_hz(root) / 2, bass_db, bass))
        beat = 0.0
        while beat < 4:
            hold = min(float(generator.choice([0.5, 0.5, 1, 1, 2])), 4 - beat)
            degree = int(np.clip(degree + generator.integers(-3, 4), 3, 16))
            if generator.uniform() > 0.15:
                start_s = bar_s + beat * beat_s
                score.append((start_s, hold * beat_s, pitch_hz(degree), lead_db, lead))
            beat += hold
        bar_s += 4 * beat_s
    return _play(score, samples, generator)


def _play(score: list[tuple], samples: int, generator: np.random.Generator) -> Tensor:
    """Add notes (start [s], duration [s], frequency [Hz], level [dB], timbre), `(samples,)`."""
    total = np.zeros(samples)
    for start_s, duration_s, frequency_hz, level_db, tone in score:
        start = round(start_s * SAMPLE_RATE)
        wave = note(frequency_hz, duration_s, tone, generator)[: max(0, samples - start)]
        total[start : start + len(wave)] += 10 ** (level_db / 20) * wave
    return faded(torch.from_numpy(total).float())


def faded(sound: Tensor) -> Tensor:
    """The sound without a click at either end (5 ms)."""
    ramp = torch.linspace(0, 1, min(122, len(sound)))
    sound = sound.clone()
    sound[: len(ramp)] *= ramp
    sound[len(sound) - len(ramp) :] *= ramp.flip(0)
    return sound
