"""Sounds from a folder of anyone's files, in place of the embedded ones.

A `manifest.csv` in the folder may say what each file is: column `file` (relative to the folder)
and, if there, `kind` and `speaker` (or, where that column is missing, `source`). Files that it
leaves out are not used. A cell that is empty, and a folder without manifest, take the kind from the
top folder and each file for a source of its own: a speaker with several files needs a manifest.
"""

import csv
import dataclasses
import itertools
import math
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from icsim.simulation.noises import NOISES, noise
from icsim.simulation.sounds import (
    LEVEL_DB_SPL,
    PROCESSED_DB_SPL,
    SEGMENT_S,
    SNR_DB,
    durations,
    levels,
    processed,
)
from icsim.sound import SAMPLE_RATE, Sound, calibrate, find_audio, mix, read_mono

MADE_OF_SPEECH = ("speech", "processed", "noisy")
"""What the files of kind speech serve for, in equal shares."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """A file and what is known of it without hearing it."""

    path: Path
    kind: str
    """speech and noise are ingredients; any other kind is kept as it is."""
    source: str
    duration_s: float


@dataclasses.dataclass(frozen=True)
class _Segment:
    recording: Recording
    start_s: float
    duration_s: float


def folder_sounds(
    folder: str | Path,
    duration_s: Mapping[str, float] | Sequence[float],
    seed: int,
    max_s: float = 30.0,
) -> list[Sound]:
    """Cut, mix and calibrate the sounds of a folder; no source is in two splits.

    Speech is used clean, processed, and in noise (noise files, speech-shaped noise, babble of the
    split's other speakers); every other kind is kept as it is. Kinds get equal shares as far as
    there is enough of each. No passage is used twice, except noise.

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
    plans, maskers = {}, {}
    for split, total_s in wanted.items():
        longest_s = max_s if split == "test" else min(SEGMENT_S[1], max_s)
        plans[split] = _plan(dealt[split], total_s, longest_s, generator)
        maskers[split] = _noise_files(dealt[split], plans[split], generator)
    # Everything is read, and so checked, before anything is made of it.
    segments = [segment for plan in plans.values() for _, segment in plan]
    passages = _passages([*segments, *itertools.chain(*maskers.values())])
    sounds = [
        sound
        for split, plan in plans.items()
        for sound in _sounds(split, plan, maskers[split], passages, generator)
    ]
    for split, total_s in wanted.items():
        made_s = sum(len(s.pressure) for s in sounds if s.split == split) / SAMPLE_RATE
        if made_s < 0.95 * total_s:
            warnings.warn(
                f"{folder}: {made_s:.1f} s for {split}, where {total_s:.1f} s were asked for; "
                "add files, or ask for less",
                stacklevel=2,
            )
    return sounds


def catalogue(folder: str | Path) -> list[Recording]:
    """The files of a folder, with kind and source; headers are read, samples are not.

    Raises:
        ValueError: If there is none, one is missing, no audio or shorter than 10 ms, or the
            manifest has no column `file` or names a file twice.
    """
    folder = Path(folder)
    manifest = folder / "manifest.csv"
    if manifest.is_file():
        rows = _manifest(manifest)
    else:
        rows = {path.relative_to(folder).as_posix(): ("", "") for path in find_audio(folder)}
    if missing := [file for file in rows if not (folder / file).is_file()]:
        raise ValueError(
            f"{folder / missing[0]}: named by {manifest} but missing ({len(missing)} such files); "
            "restore it or remove its row"
        )
    recordings = []
    for file, (kind, source) in rows.items():
        parts = Path(file).parts
        kind = kind or (parts[0].lower() if len(parts) > 1 else "sound")
        length_s = _duration_s(folder / file)
        recordings.append(Recording(folder / file, kind, source or file, length_s))
    # With nobody to mask, noise is a kind like any other.
    if not any(r.kind == "speech" for r in recordings):
        return recordings
    return sorted(recordings, key=lambda r: r.kind == "noise")


def _manifest(path: Path) -> dict[str, tuple[str, str]]:
    """Kind and source of each file, empty where unknown."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or "file" not in rows[0]:
        raise ValueError(f"{path}: needs a column called file and a row for each file")
    who = "speaker" if "speaker" in rows[0] else "source"
    named = {}
    for row in rows:
        cells = {key: (row.get(key) or "").strip() for key in ("file", "kind", who)}
        if not cells["file"] or cells["file"] in named:
            raise ValueError(f"{path}: a row without file, or {cells['file']!r} twice; remove it")
        named[cells["file"]] = (cells["kind"].lower(), cells[who])
    return named


def _duration_s(path: Path) -> float:
    try:
        header = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path}: cannot be read as audio ({error}); convert or remove it"
        ) from error
    # A length that the header does not tell comes as an enormous number.
    if not 0.01 * header.samplerate <= header.frames < 2**40:
        raise ValueError(
            f"{path}: {header.frames} samples; a whole sound of at least 10 ms is needed; remove it"
        )
    return header.frames / header.samplerate


def deal(
    recordings: Sequence[Recording], wanted: Mapping[str, float], generator: np.random.Generator
) -> dict[str, list[Recording]]:
    """Give every source to one split, kind by kind in proportion to what each split wants.

    Args:
        recordings: All of them.
        wanted: Seconds of each split, all positive.
        generator: Draws the order of the sources.

    Raises:
        ValueError: If there are fewer sources than splits.
    """
    ingredient = "noise" if any(r.kind == "speech" for r in recordings) else None
    sources = {r.source for r in recordings if r.kind != ingredient}
    if len(sources) < len(wanted):
        raise ValueError(
            f"{len(sources)} source(s): {', '.join(sorted(sources))}; at least {len(wanted)} are "
            f"needed, since {', '.join(wanted)} share none (tell speakers apart in manifest.csv)"
        )
    of_kind = defaultdict(lambda: defaultdict(float))
    for r in recordings:
        of_kind[r.kind][r.source] += r.duration_s
    home, held = {}, defaultdict(float)
    # Kinds with many sources first, so that a kind with one cannot leave a split empty; the
    # ingredient last.
    for kind in sorted(of_kind, key=lambda k: (k == ingredient, -len(of_kind[k]), k)):
        seconds, aim = of_kind[kind], sum(of_kind[kind].values()) / sum(wanted.values())

        def need(split: str, kind: str = kind, aim: float = aim) -> tuple[bool, float, float]:
            filled = held[split, kind] / (aim * wanted[split])
            return split not in home.values(), -filled, wanted[split]

        for source in generator.permutation(sorted(seconds)).tolist():
            home.setdefault(source, max(wanted, key=need))
            held[home[source], kind] += seconds[source]
    return {split: [r for r in recordings if home[r.source] == split] for split in wanted}


def _plan(
    recordings: list[Recording], total_s: float, longest_s: float, generator: np.random.Generator
) -> list[tuple[str, _Segment]]:
    """What is to be made of which passage; kinds share alike as far as there is enough of each."""
    by_kind = defaultdict(list)
    for r in recordings:
        by_kind[r.kind].append(r)
    if "speech" in by_kind:
        by_kind.pop("noise", None)
    weight = {kind: len(MADE_OF_SPEECH) if kind == "speech" else 1 for kind in by_kind}
    have_s = {kind: sum(r.duration_s for r in group) for kind, group in by_kind.items()}
    plan, left_s, left = [], total_s, sum(weight.values())
    # The scarcest first: what it cannot give, the others do.
    for kind in sorted(by_kind, key=lambda k: have_s[k] / weight[k]):
        share_s = min(have_s[kind], left_s * weight[kind] / left)
        left_s, left = left_s - share_s, left - weight[kind]
        limit_s = max(1.0, min(longest_s, share_s / weight[kind]))
        made_s = dict.fromkeys(MADE_OF_SPEECH if kind == "speech" else (kind,), 0.0)
        for segment in _cut(by_kind[kind], share_s, limit_s, generator):
            scarcest = min(made_s, key=made_s.get)
            made_s[scarcest] += segment.duration_s
            plan.append((scarcest, segment))
    return sorted(plan, key=lambda item: item[0])


def _cut(
    recordings: list[Recording], total_s: float, longest_s: float, generator: np.random.Generator
) -> list[_Segment]:
    """Equal parts of each file, first parts first, as many as needed and then cut to the total."""
    parts = []
    for r, place in zip(recordings, generator.permutation(len(recordings)), strict=True):
        count = math.ceil(r.duration_s / longest_s)
        each_s = r.duration_s / count
        parts += [(i, place, _Segment(r, i * each_s, each_s)) for i in range(count)]
    taken, have_s = [], 0.0
    for _, _, segment in sorted(parts, key=lambda part: part[:2]):
        if have_s >= 0.98 * total_s:
            break
        taken.append(segment)
        have_s += segment.duration_s
    keep = min(1.0, total_s / have_s)
    return [dataclasses.replace(s, duration_s=keep * s.duration_s) for s in taken]


def _noise_files(
    recordings: list[Recording], plan: list[tuple[str, _Segment]], generator: np.random.Generator
) -> list[_Segment]:
    """Whole noise files, no more than there are sounds to mask."""
    masked = sum(kind == "noisy" and s.recording.kind == "speech" for kind, s in plan)
    files = [r for r in recordings if r.kind == "noise"]
    return [_Segment(files[i], 0.0, math.inf) for i in generator.permutation(len(files))[:masked]]


def _passages(segments: Iterable[_Segment]) -> dict[_Segment, Tensor]:
    """Samples of each segment, `(T,)`, reading each file once; silent passages are left out."""
    passages = {}
    ordered = sorted(segments, key=lambda s: (s.recording.path, s.start_s))
    for path, group in itertools.groupby(ordered, key=lambda s: s.recording.path):
        whole = read_mono(path)
        for s in group:
            start = round(s.start_s * SAMPLE_RATE)
            stop = len(whole) if math.isinf(s.duration_s) else round(s.duration_s * SAMPLE_RATE)
            passage = whole[start : start + stop].clone()
            if bool(passage.any()):
                passages[s] = passage
    return passages


def _sounds(
    split: str,
    plan: list[tuple[str, _Segment]],
    maskers: list[_Segment],
    passages: dict[_Segment, Tensor],
    generator: np.random.Generator,
) -> Iterator[Sound]:
    """The planned sounds of a split."""
    heard = [(kind, segment) for kind, segment in plan if segment in passages]
    for kind, group in itertools.groupby(heard, key=lambda item: item[0]):
        segments = [segment for _, segment in group]
        bounds = PROCESSED_DB_SPL if kind == "processed" else LEVEL_DB_SPL
        loudness = levels(len(segments), *bounds, generator)
        for i, (segment, level_db_spl) in enumerate(zip(segments, loudness, strict=True)):
            sound, source = passages[segment], segment.recording.source
            if segment.recording.kind == "speech" and kind == "processed":
                sound = processed(sound, generator)
            elif segment.recording.kind == "speech" and kind == "noisy":
                others = [passages[s] for _, s in heard if s.recording.source != source][:20]
                files = [passages[s] for s in maskers]
                masker = _masker(i, len(sound), files, others, generator)
                sound = mix(sound, masker, float(generator.uniform(*SNR_DB)))
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
