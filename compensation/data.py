"""What an aid hears while it learns: sounds of all kinds, in quiet and in noise, in rooms."""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import fftconvolve
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from icsim.catalogue import catalogue
from icsim.simulation.noises import NOISES, noise
from icsim.sound import SAMPLE_RATE, calibrate, level, mix, read_mono, validate

T60_S = (0.2, 0.8)
"""Range of a room's reverberation times [s]: small furnished rooms to classrooms (chosen here)."""

T60_HZ = (125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0)
"""Where a room's reverberation time is set [Hz]."""

DIRECT_DB = (-5.0, 15.0)
"""Range of direct over reverberant energy [dB]: across the room to close by (chosen here)."""

PAUSE_DEPTH_DB = 15.0
"""How far pauses must lie below speech for it to be taken as clean [dB]. Speech at 7 dB SNR in
stationary noise has 15; of LibriSpeech 96 % of the sounds have more (chosen here)."""

NOISY_SHARE = 0.1
"""Share of noisy sounds from which speech as a whole is refused (chosen here)."""

GAP_S = (0.002, 0.02)
"""Range of the time between the direct sound and the first reflection [s] (chosen here)."""


class Mixtures(Dataset):
    """Endless excerpts, clean and with noise; item `i` depends on the seed and `i` alone.

    Args:
        speech: Sounds that noise is added to, `(T,)` each, any amplitude.
        others: Sounds of any kind that stay as they are (music, ripples, processed speech); may be
            empty.
        samples: Length of an excerpt; shorter sounds are left out.
        count: How many items there are.
        seed: Of everything.
        level_db_spl: Range of the clean sound's level [dB SPL].
        snr_db: Range of signal-to-noise ratios [dB].
        quiet: Share of items without noise.
        noises: Recorded noises, half of the noise where there are any; the other half is made.
        reverberant: Share of items heard in a room. The clean sound is in the room as well, since
            an aid is not asked to take a room away; noise is added as it is.

    Raises:
        ValueError: If there is no speech, or none as long as an excerpt; if a sound is silent or
            not finite, or a share or a range is none.
    """

    left_out: int
    """How many sounds are shorter than an excerpt."""

    def __init__(
        self,
        speech: Sequence[Tensor],
        others: Sequence[Tensor],
        samples: int,
        count: int,
        seed: int,
        level_db_spl: tuple[float, float] = (45.0, 85.0),
        snr_db: tuple[float, float] = (-5.0, 20.0),
        quiet: float = 0.4,
        noises: Sequence[Tensor] = (),
        reverberant: float = 0.0,
    ):
        for name, share in {"quiet": quiet, "reverberant": reverberant}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is a share of all items, 0 to 1, got {share}")
        for name, (low, high) in {"level_db_spl": level_db_spl, "snr_db": snr_db}.items():
            if not -math.inf < low <= high < math.inf:
                raise ValueError(f"{name} must be a range from low to high, got {(low, high)}")
        self.speech = _long_enough("speech", speech, samples)
        self.others = _long_enough("others", others, samples)
        self.noises = _long_enough("noises", noises, samples)
        given = len(speech) + len(others) + len(noises)
        self.left_out = given - len(self.speech) - len(self.others) - len(self.noises)
        if not self.speech:
            raise ValueError(
                f"none of {len(speech)} speech sounds has {samples} samples, and {self.left_out} "
                f"of all {given} sounds are shorter: give longer ones, or ask for shorter excerpts"
            )
        self.samples, self.count, self.seed = samples, count, seed
        self.level_db_spl, self.snr_db, self.quiet = level_db_spl, snr_db, quiet
        self.reverberant = reverberant

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`clean` and `noisy` `(T,)` [Pa], the same where `in_noise` is False."""
        if not 0 <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")
        draw = np.random.default_rng([self.seed, index])
        quiet = draw.random() < self.quiet
        kind = self.others if quiet and self.others and draw.random() < 0.5 else self.speech
        # Rooms have draws of their own: the rest is what it would be without them.
        room = np.random.default_rng([self.seed, index, 1])
        if room.random() < self.reverberant:
            response = draw_room(room)
            sound = excerpt(kind, self.samples, draw, before=len(response))
            sound = reverberate(sound, response)[-self.samples :]
        else:
            sound = excerpt(kind, self.samples, draw)
        clean = calibrate(sound, draw.uniform(*self.level_db_spl))
        if quiet:
            return {"clean": clean, "noisy": clean, "in_noise": torch.tensor(False)}
        noisy = mix(clean, self._masker(draw), draw.uniform(*self.snr_db))
        return {"clean": clean, "noisy": noisy, "in_noise": torch.tensor(True)}

    def _masker(self, draw: np.random.Generator) -> Tensor:
        if self.noises and draw.random() < 0.5:
            return excerpt(self.noises, self.samples, draw)
        kind = str(draw.choice(NOISES))
        talkers = range(4) if kind == "babble" else ()
        voices = [excerpt(self.speech, self.samples, draw) for _ in talkers]
        return noise(kind, self.samples, draw, voices)


def excerpt(
    sounds: Sequence[Tensor], samples: int, draw: np.random.Generator, before: int = 0
) -> Tensor:
    """A random excerpt that is not a pause.

    Args:
        sounds: Each `(T,)`, none silent, with T at least `samples`.
        samples: Length of the excerpt.
        draw: Random numbers.
        before: Samples that are wanted in front of it, as far as the sound has them.

    Returns:
        `(samples,)`, or up to `before` more in front.
    """
    sound = sounds[int(draw.integers(len(sounds)))]
    starts = draw.integers(len(sound) - samples + 1, size=8)
    loudness = [level(sound[start : start + samples]).item() for start in starts]
    enough = level(sound).item() - 10
    which = next((i for i, here in enumerate(loudness) if here > enough), int(np.argmax(loudness)))
    start = int(starts[which])
    if loudness[which] == -math.inf:
        start = min(max(int(sound.abs().argmax()) - samples // 2, 0), len(sound) - samples)
    return sound[max(start - before, 0) : start + samples]


def draw_room(draw: np.random.Generator) -> Tensor:
    """The response of a room drawn from `T60_S`, `DIRECT_DB` and `GAP_S`, as `room_response`.

    Low frequencies ring longest, high ones shortest, as air and furniture absorb them.
    """
    shortest, longest = sorted(draw.uniform(*T60_S, size=2))
    t60_s = np.linspace(longest, shortest, len(T60_HZ)).tolist()
    return room_response(t60_s, draw.uniform(*DIRECT_DB), draw.uniform(*GAP_S), draw)


def room_response(
    t60_s: Sequence[float], direct_db: float, gap_s: float, draw: np.random.Generator
) -> Tensor:
    """Direct sound, a gap, and noise that decays exponentially, in each octave at its own rate.

    Args:
        t60_s: Times in which it decays by 60 dB [s], at `T60_HZ`.
        direct_db: Energy of the direct sound over that of the noise [dB].
        gap_s: Between the two [s].
        draw: Draws the noise.

    Returns:
        `(R,)`, the direct sound first and 1; it ends where the longest decay has reached 60 dB.

    Source: Polack 1988 (reverberation as decaying noise).
    """
    samples = next_fast_len(math.ceil(max(t60_s) * SAMPLE_RATE), real=True)
    time_s = np.arange(samples) / SAMPLE_RATE
    spectrum = rfft(draw.standard_normal(samples))
    octave = np.log2(np.maximum(rfftfreq(samples, 1 / SAMPLE_RATE), 1) / T60_HZ[0])
    octave = octave.clip(0, len(T60_HZ) - 1)
    noise = np.zeros(samples)
    for place, t60 in enumerate(t60_s):
        share = np.clip(1 - np.abs(octave - place), 0, None)
        noise += irfft(spectrum * share, samples) * 10 ** (-3 * time_s / t60)
    noise *= 10 ** (-direct_db / 20) / np.sqrt(np.square(noise).sum())
    direct = np.zeros(max(1, round(gap_s * SAMPLE_RATE)))
    direct[0] = 1
    return torch.from_numpy(np.concatenate([direct, noise])).float()


def reverberate(sound: Tensor, response: Tensor) -> Tensor:
    """A sound in a room, `(T,)`, without what rings on after it."""
    return torch.from_numpy(fftconvolve(sound.numpy(), response.numpy())[: len(sound)])


def pause_depth_db(sound: Tensor) -> float:
    """How far the softest twentieth of a sound lies below its loudest twentieth [dB].

    Frames of 20 ms are compared by their RMS. Speech pauses; what is left in its pauses is the
    noise of the recording. Frames more than 80 dB below the loudest are left out: silence that a
    computer has put there says nothing of the noise beside it.

    Args:
        sound: Any linear amplitude, `(T,)`, of at least 20 ms.

    >>> round(pause_depth_db(torch.cat([torch.ones(24414), 0.1 * torch.ones(24414)])))
    20
    """
    frame = round(0.02 * SAMPLE_RATE)
    frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
    levels_db = level(frames)
    levels_db = levels_db[levels_db > levels_db.max() - 80]
    soft, loud = torch.quantile(levels_db, torch.tensor([0.05, 0.95]).to(levels_db)).tolist()
    return loud - soft


def require_clean(speech: Mapping[str, Tensor], depth_db: float = PAUSE_DEPTH_DB) -> None:
    """Ask whether sounds are clean speech, since what is called so becomes an aid's target.

    An aid is trained to leave nothing but the clean sound. Where that carries noise of its own, it
    learns to let noise through, and no score says so.

    Args:
        speech: Sounds by name, `(T,)`; those shorter than 1 s are not judged.
        depth_db: Smallest `pause_depth_db`; 0 takes everything.

    Raises:
        ValueError: If more than one sound, and more than `NOISY_SHARE` of them, is noisy.

    Warns:
        UserWarning: If fewer are; they stay.
    """
    judged = {name: pause_depth_db(s) for name, s in speech.items() if len(s) >= SAMPLE_RATE}
    noisy = {name: depth for name, depth in judged.items() if depth < depth_db}
    if not noisy:
        return
    softest = sorted(noisy, key=noisy.__getitem__)
    some = ", ".join(f"{name} ({noisy[name]:.0f} dB)" for name in softest[:5])
    more = f" and {len(noisy) - 5} more" if len(noisy) > 5 else ""
    message = (
        f"{len(noisy)} of {len(judged)} sounds called speech seem noisy, their pauses lie less "
        f"than {depth_db:g} dB below the speech: {some}{more}. What is called speech becomes the "
        "clean sound that an aid aims at. Give them the kind 'noisy' (in manifest.csv, or in the "
        "cohort), or leave them out"
    )
    if len(noisy) > max(1, NOISY_SHARE * len(judged)):
        raise ValueError(f"{message}; if they are clean, --pause_depth_db 0 takes them as they are")
    warnings.warn(message, stacklevel=2)


def read_folder(
    folder: str | Path, progress: bool = False, depth_db: float = PAUSE_DEPTH_DB
) -> dict[str, list[Tensor]]:
    """All sounds of a folder, whole, as `Mixtures` takes them; `icsim.catalogue` says what is what.

    They are kept in memory: 0.35 GB an hour.

    Args:
        folder: WAV, FLAC and OGG files, told apart by top folder (speech, noise, any other) or by
            a manifest.
        progress: Show a progress bar.
        depth_db: Of `require_clean`, which speech must pass; 0 takes everything.

    Returns:
        `speech`, `others` and `noises`, for `Mixtures(**read_folder(folder), samples=…)`.

    Raises:
        ValueError: If there is no speech, it is noisy, or a file cannot be used; the message names
            it.
    """
    files = catalogue(folder)
    if not any(file.kind == "speech" for file in files):
        kinds = ", ".join(sorted({file.kind for file in files}))
        raise ValueError(
            f"{folder}: no speech, only {kinds}; put speech into {folder}/speech, or name the kind "
            "of each file in manifest.csv"
        )
    sounds: dict[str, list[Tensor]] = {"speech": [], "others": [], "noises": []}
    speech: dict[str, Tensor] = {}
    for file in tqdm(files, desc="reading sounds", unit="file", disable=not progress):
        name = {"speech": "speech", "noise": "noises"}.get(file.kind, "others")
        sounds[name].append(read_mono(file.path))
        if name == "speech":
            speech[str(file.path)] = sounds[name][-1]
    require_clean(speech, depth_db)
    return sounds


class _Joined(Sequence[Tensor]):
    """Sounds in one tensor: sent to a worker, each by itself would hold a file open."""

    def __init__(self, sounds: Sequence[Tensor]):
        self._samples = torch.cat(list(sounds))
        ends = itertools.accumulate(map(len, sounds), initial=0)
        self._places = list(itertools.starmap(slice, itertools.pairwise(ends)))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # slices are not wanted
        return self._samples[self._places[index]]


def _long_enough(name: str, sounds: Sequence[Tensor], samples: int) -> Sequence[Tensor]:
    """The sounds that an excerpt fits into, checked."""
    long = [
        validate(sound, f"{name}, sound {i}")
        for i, sound in enumerate(sounds)
        if len(sound) >= samples
    ]
    return _Joined(long) if long else []
