"""Sounds from a folder of anyone's files, in place of the embedded ones.

What its files are is told by their folders or by a manifest; see `icsim.catalogue`.
"""

import dataclasses
import itertools
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icsim.catalogue import AudioFile, catalogue, deal
from icsim.simulation.noises import NOISES, noise
from icsim.simulation.sounds import (
    LEVEL_DB_SPL,
    PROCESSED_DB_SPL,
    SEGMENT_S,
    SNR_DB,
    durations,
    levels,
    masked,
    processed,
)
from icsim.sound import SAMPLE_RATE, Sound, calibrate, mix, read_mono

MADE_OF_SPEECH = ("speech", "processed", "noisy")
"""What the files of kind speech serve for, in equal shares."""


@dataclasses.dataclass(frozen=True)
class _Passage:
    file: AudioFile
    start_s: float
    duration_s: float


def folder_sounds(
    folder: str | Path,
    duration_s: Mapping[str, float] | Sequence[float],
    seed: int,
    max_s: float = 30.0,
) -> list[Sound]:
    """Cut, mix and calibrate the sounds of a folder; no source is in two splits.

    Speech is used clean, processed (half of it in noise), and in noise: noise files, speech-shaped
    noise, babble of the split's other speakers. Every other kind is kept as it is. Kinds get equal
    shares as far as there is enough of each. No passage is used twice, except noise.

    Args:
        folder: WAV, FLAC and OGG files of any rate and channels, at any depth; channels are
            averaged.
        duration_s: Total of each split [s], by name or in the order train, validation, test.
        seed: Everything that is drawn follows from it.
        max_s: Longest sound [s]; in training and validation no more than 10 s.

    Returns:
        The sounds at 40–90 dB SPL (processed: 40–100), split by split.

    Raises:
        ValueError: If the folder has no sounds or fewer sources than splits, or a file is missing,
            no audio, too short, silent or has samples that are not finite; the message names it.

    Warns:
        UserWarning: If the folder holds less than is asked for; what there is is used.
    """
    wanted = {split: s for split, s in durations(duration_s, max_s).items() if s > 0}
    generator = np.random.default_rng(seed)
    dealt = deal(catalogue(folder), wanted, generator)
    longest_s = {split: max_s if split == "test" else min(SEGMENT_S[1], max_s) for split in wanted}
    plans = {s: _plan(dealt[s], wanted[s], longest_s[s], generator) for s in wanted}
    maskers = {s: _maskers(dealt[s], plans[s], generator) for s in wanted}
    # Everything is read, and so checked, before anything is made of it.
    audio = _read(p for s in wanted for group in (maskers[s], *plans[s].values()) for p in group)
    sounds = []
    for split, asked_s in wanted.items():
        of_split = list(_sounds(split, plans[split], maskers[split], audio, generator))
        made_s = sum(len(sound.pressure) for sound in of_split) / SAMPLE_RATE
        if made_s < 0.95 * asked_s:
            warnings.warn(
                f"{folder}: {made_s:.1f} s for {split}, where {asked_s:.1f} s were asked for; "
                "add files, or ask for less",
                stacklevel=2,
            )
        sounds += of_split
    return sounds


def _plan(
    files: list[AudioFile], total_s: float, longest_s: float, generator: np.random.Generator
) -> dict[str, list[_Passage]]:
    """The passages of each kind of sound; kinds share alike as far as there is enough of each."""
    by_kind = defaultdict(list)
    for f in files:
        by_kind[f.kind].append(f)
    if "speech" in by_kind:
        by_kind.pop("noise", None)
    serves = {kind: MADE_OF_SPEECH if kind == "speech" else (kind,) for kind in by_kind}
    have_s = {kind: sum(f.duration_s for f in group) for kind, group in by_kind.items()}
    plan, left_s, left = defaultdict(list), total_s, sum(map(len, serves.values()))
    # The scarcest first: what it cannot give, the others do.
    for kind in sorted(by_kind, key=lambda k: have_s[k] / len(serves[k])):
        share_s = min(have_s[kind], left_s * len(serves[kind]) / left)
        left_s, left = left_s - share_s, left - len(serves[kind])
        limit_s = max(1.0, min(longest_s, share_s / len(serves[kind])))
        made_s = dict.fromkeys(serves[kind], 0.0)
        for passage in _cut(by_kind[kind], share_s, limit_s, generator):
            scarcest = min(made_s, key=made_s.__getitem__)
            made_s[scarcest] += passage.duration_s
            plan[scarcest].append(passage)
    return dict(sorted(plan.items()))


def _cut(
    files: list[AudioFile], total_s: float, longest_s: float, generator: np.random.Generator
) -> list[_Passage]:
    """Equal parts of each file, first parts first, as many as needed and then cut to the total."""
    parts = []
    for place in generator.permutation(len(files)):
        count = math.ceil(files[place].duration_s / longest_s)
        each_s = files[place].duration_s / count
        parts += [(i, _Passage(files[place], i * each_s, each_s)) for i in range(count)]
    taken, have_s = [], 0.0
    for _, passage in sorted(parts, key=lambda part: part[0]):
        if have_s >= 0.98 * total_s:
            break
        taken.append(passage)
        have_s += passage.duration_s
    keep = min(1.0, total_s / have_s)
    return [dataclasses.replace(p, duration_s=keep * p.duration_s) for p in taken]


def _maskers(
    files: list[AudioFile], plan: dict[str, list[_Passage]], generator: np.random.Generator
) -> list[_Passage]:
    """Whole noise files, no more than there is speech to mask."""
    most = sum(p.file.kind == "speech" for k in ("noisy", "processed") for p in plan.get(k, ()))
    noises = [f for f in files if f.kind == "noise"]
    order = generator.permutation(len(noises))[:most]
    return [_Passage(noises[i], 0.0, noises[i].duration_s) for i in order]


def _read(passages: Iterable[_Passage]) -> dict[_Passage, Tensor]:
    """Samples of each passage, `(T,)`, reading each file once; silent passages are left out."""
    audio = {}
    ordered = sorted(passages, key=lambda p: (p.file.path, p.start_s))
    for path, group in itertools.groupby(ordered, key=lambda p: p.file.path):
        whole = read_mono(path)
        for p in group:
            start = round(p.start_s * SAMPLE_RATE)
            samples = whole[start : start + round(p.duration_s * SAMPLE_RATE)].clone()
            if bool(samples.any()):
                audio[p] = samples
    return audio


def _sounds(
    split: str,
    plan: dict[str, list[_Passage]],
    maskers: list[_Passage],
    audio: dict[_Passage, Tensor],
    generator: np.random.Generator,
) -> Iterator[Sound]:
    """The planned sounds of a split."""
    noises = [audio[p] for p in maskers]
    usable = {kind: [p for p in passages if p in audio] for kind, passages in plan.items()}
    voices = [p for group in usable.values() for p in group if p.file.kind == "speech"]
    for kind, group in usable.items():
        bounds = PROCESSED_DB_SPL if kind == "processed" else LEVEL_DB_SPL
        loudness = levels(len(group), *bounds, generator)
        in_noise = masked(kind, len(group), generator)
        for i, (passage, level_db_spl) in enumerate(zip(group, loudness, strict=True)):
            sound, source = audio[passage], passage.file.source
            is_speech = passage.file.kind == "speech"  # what is noisy already stays as it is
            if is_speech and in_noise[i]:
                others = {p.file.source: audio[p] for p in voices if p.file.source != source}
                masker = _masker(i, len(sound), noises, list(others.values()), generator)
                sound = mix(sound, masker, float(generator.uniform(*SNR_DB)))
            if is_speech and kind == "processed":
                sound = processed(sound, generator)
            name = f"{split}-{kind}-{i:04d}"
            yield Sound(name, kind, source, split, calibrate(sound, level_db_spl))


def _masker(
    turn: int,
    samples: int,
    files: list[Tensor],
    talkers: list[Tensor],
    generator: np.random.Generator,
) -> Tensor:
    """Noise files every other turn, made noises in between, `(samples,)`."""
    if files and turn % 2 == 0:
        whole = files[turn // 2 % len(files)]
        start = int(generator.integers(max(1, len(whole) - samples)))
        masker = whole[(start + torch.arange(samples)) % len(whole)]
        if bool(masker.any()):
            return masker
    kinds = [kind for kind in NOISES if kind != "babble" or talkers]
    return noise(kinds[turn // (2 if files else 1) % len(kinds)], samples, generator, talkers)
