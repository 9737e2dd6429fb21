"""Whose sounds a folder holds: its files, their kinds and sources, and the split of each source.

A `manifest.csv` in the folder may say what each file is: column `file` (relative to the folder)
and, if there, `kind` and `speaker` (or, where that column is missing, `source`). Files that it
leaves out are not used. A cell that is empty, and a folder without manifest, take the kind from the
top folder and each file for a source of its own: a speaker with several files needs a manifest.
"""

import csv
import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from icsim.sound import find_audio


@dataclasses.dataclass(frozen=True)
class AudioFile:
    """A file and what is known of it without hearing it."""

    path: Path
    kind: str
    """speech and noise are ingredients; any other kind is kept as it is."""
    source: str
    duration_s: float


def catalogue(folder: str | Path) -> list[AudioFile]:
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
    files = []
    for file, (kind, source) in rows.items():
        top, *below = Path(file).parts
        kind = kind or (top.lower() if below else "sound")
        files.append(AudioFile(folder / file, kind, source or file, _duration_s(folder / file)))
    return files


def _manifest(path: Path) -> dict[str, tuple[str, str]]:
    """Kind and source of each file, empty where unknown."""
    with path.open(newline="", encoding="utf-8-sig") as table:
        rows = list(csv.DictReader(table))
    if not rows or "file" not in rows[0]:
        raise ValueError(f"{path}: needs a column called file and a row for each file")
    who = "speaker" if "speaker" in rows[0] else "source"
    named: dict[str, tuple[str, str]] = {}
    for row in rows:
        file, kind, source = ((row.get(key) or "").strip() for key in ("file", "kind", who))
        if not file or file in named:
            raise ValueError(f"{path}: a row without file, or {file!r} twice; remove it")
        named[file] = (kind.lower(), source)
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
    files: Sequence[AudioFile], wanted: Mapping[str, float], generator: np.random.Generator
) -> dict[str, list[AudioFile]]:
    """Give every source to one split, kind by kind in proportion to what each split wants.

    Args:
        files: All of them.
        wanted: Seconds of each split, all positive.
        generator: Draws the order of the sources.

    Raises:
        ValueError: If there are fewer sources than splits.
    """
    # With nobody to mask, noise is a kind like any other.
    ingredient = "noise" if any(f.kind == "speech" for f in files) else None
    sources = {f.source for f in files if f.kind != ingredient}
    if len(sources) < len(wanted):
        raise ValueError(
            f"{len(sources)} source(s): {', '.join(sorted(sources))}; at least {len(wanted)} are "
            f"needed, since {', '.join(wanted)} share none (tell speakers apart in manifest.csv)"
        )
    have_s: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for f in files:
        have_s[f.kind][f.source] += f.duration_s
    home: dict[str, str] = {}
    held_s: dict[tuple[str, str], float] = defaultdict(float)
    # Kinds with many sources first, so that a kind with one cannot leave a split empty; the
    # ingredient last.
    for kind in sorted(have_s, key=lambda k: (k == ingredient, -len(have_s[k]), k)):
        for source in generator.permutation(sorted(have_s[kind])).tolist():
            need = {
                split: (split not in home.values(), -held_s[split, kind] / total_s, total_s)
                for split, total_s in wanted.items()
            }
            home.setdefault(source, max(need, key=need.__getitem__))
            held_s[home[source], kind] += have_s[kind][source]
    return {split: [f for f in files if home[f.source] == split] for split in wanted}
