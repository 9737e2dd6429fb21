"""Spike times of single cells: a folder of sound files, and of CSV files with a row for each spike.

A CSV file has a header and the columns

    sound     a sound file of the folder, with or without its suffix
    repeat    which playing of that sound; any label, numbers in their order
    time_s    when the spike was fired since that playing began [s]; or time_ms [ms]
    cell      which cell; without this column the file is one cell, of the file's name
    start_s   optional: when that playing began, since the recording began [s]

Any number of files, at any depth; each playing of a sound is a presentation. A row without a time
says that the cell was there and fired nothing. Every cell must have a row of every sound; playings
of which it has none are taken to have been silent. Sounds of which nothing was recorded are left
out. Kinds, sources and splits of the sounds may be given by a `manifest.csv`, with the columns
`file`, `kind`, `source` (or `speaker`) and `split`.
"""

import csv
import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icsim.catalogue import AudioFile, catalogue
from icsim.clock import Clock
from icsim.importers.frames import numeric_order
from icsim.mua import count_spikes
from icsim.recording import Recording
from icsim.sound import REFERENCE_PA, Sound, read_mono

PAUSE_S = 1.0
"""Between one presentation and the next, where no times are given [s] (chosen here)."""

SECONDS = {"time_s": 1.0, "time_ms": 1e-3}
"""Columns of spike times, and their unit [s]."""

LOST_SPIKES = 10.0
"""A cell that should have fired so many spikes in playings without a row was not recorded in them:
at a steady rate that happens once in 20 000 cases (chosen here)."""

Spikes = dict[str, dict[str, dict[str, np.ndarray]]]
"""By cell, sound and repeat the spike times since the sound began [s], `(S,)`."""


@dataclasses.dataclass
class _Rows:
    """What the CSV files say."""

    spikes: dict[str, dict[str, dict[str, list[float]]]]
    starts_s: dict[tuple[str, str], float]
    """By sound and repeat, where a file says it."""


def read_spike_times(
    folder: str | Path,
    *,
    status: str,
    full_scale_db_spl: float,
    role: str = "seen",
    kind: str = "unknown",
    split: str = "train",
    clock: Clock | None = None,
) -> tuple[list[Sound], Recording]:
    """One animal, or cells of several taken together: what `create` and `Cohort.add_animal` take.

    Args:
        folder: Of sound files and CSV files.
        status: NH or HI.
        full_scale_db_spl: Level of a sound whose RMS is 1 in the files [dB SPL]: 93.98 where they
            are in pascals, and where an RMS of 0.2 is 80 dB SPL. Samples are scaled by it alone.
        role: seen or unseen.
        kind: Class of the sounds of which neither manifest nor folder says it.
        split: Split of those of which the manifest does not say it.
        clock: Sample rate that sounds are brought to, and bins that spikes are counted in; the
            published one if not given.

    Raises:
        ValueError: If there are no sounds or no spikes, or a row does not fit; the message names
            it.
    """
    folder, clock = Path(folder), clock or Clock()
    files = catalogue(folder)
    splits = _manifest_splits(folder)
    rows = _read_rows(folder, _by_name(folder, files))
    played = {sound for of_cell in rows.spikes.values() for sound in of_cell}
    sounds = [
        Sound(
            name=name,
            kind=kind if file.kind == "sound" else file.kind,
            source=name if file.source == file.path.relative_to(folder).as_posix() else file.source,
            split=splits.get(file.path.relative_to(folder).as_posix(), split),
            pressure=in_pascals(file.path, full_scale_db_spl, clock),
        )
        for file in files
        if (name := _name(folder, file)) in played
    ]
    spikes = {
        cell: {
            sound: {repeat: np.array(times_s) for repeat, times_s in repeats.items()}
            for sound, repeats in rows.spikes[cell].items()
        }
        for cell in _ordered(rows.spikes)
    }
    recording = recording_of(spikes, sounds, rows.starts_s, clock, status=status, role=role)
    return sounds, recording


def in_pascals(path: Path, full_scale_db_spl: float, clock: Clock) -> Tensor:
    """A sound file's samples times the pressure of 1, [Pa] `(T,)`; not clipped, not normalised."""
    return read_mono(path, clock.sample_rate_hz) * (REFERENCE_PA * 10 ** (full_scale_db_spl / 20))


def recording_of(
    spikes: Spikes,
    sounds: Sequence[Sound],
    starts_s: Mapping[tuple[str, str], float],
    clock: Clock,
    *,
    status: str,
    role: str,
) -> Recording:
    """The recording of cells, a channel each, in their order.

    Repeats of a sound are those that any cell has. Without times, all sounds are played once after
    the other, then all again.

    Args:
        spikes: Of all cells.
        sounds: Those that were played.
        starts_s: When each sound and repeat began, since the recording began [s]; of all, or none.
        clock: Of the sounds and the bins.
        status: NH or HI.
        role: seen or unseen.

    Raises:
        ValueError: If a cell has no repeat of a sound, times are in another unit, or some are
            missing.
    """
    repeats = {
        s.name: _ordered({r for of_cell in spikes.values() for r in of_cell.get(s.name, {})})
        for s in sounds
    }
    for sound in sounds:
        _check(spikes, sound, repeats[sound.name], clock)
    turns = range(max(map(len, repeats.values())))
    shown = [
        (i, repeats[s.name][turn])
        for turn in turns
        for i, s in enumerate(sounds)
        if turn < len(repeats[s.name])
    ]
    begins_s = _begins_s(shown, sounds, starts_s, clock)
    shown = [shown[i] for i in np.argsort(begins_s, kind="stable")]
    return Recording(
        status=status,
        role=role,
        thresholds_db_spl=None,
        abr_frequencies_hz=None,
        channels=len(spikes),
        presentations=[(i, t / 3600) for (i, _), t in zip(shown, sorted(begins_s), strict=True)],
        counts=_counted(spikes, sounds, shown, clock),
    )


def _counted(
    spikes: Spikes, sounds: Sequence[Sound], shown: Sequence[tuple[int, str]], clock: Clock
) -> Iterator[Tensor]:
    """Counts `(N, C)` of each presentation."""
    nothing = np.empty(0)
    for i, repeat in shown:
        name, bins = sounds[i].name, len(sounds[i].pressure) // clock.bin_samples
        times_s = (of_cell[name].get(repeat, nothing) for of_cell in spikes.values())
        counted = (count_spikes(times, 0.0, bins, clock.bin_rate_hz) for times in times_s)
        yield torch.stack(list(counted), -1)


def _begins_s(
    shown: Sequence[tuple[int, str]],
    sounds: Sequence[Sound],
    starts_s: Mapping[tuple[str, str], float],
    clock: Clock,
) -> list[float]:
    """When each presentation began [s]."""
    if starts_s:
        named = [(sounds[i].name, repeat) for i, repeat in shown]
        if missing := [pair for pair in named if pair not in starts_s]:
            raise ValueError(
                f"sound {missing[0][0]!r}, repeat {missing[0][1]} has no start_s, and others have; "
                "give it for all or for none"
            )
        return [starts_s[pair] for pair in named]
    lengths_s = [len(sounds[i].pressure) / clock.sample_rate_hz + PAUSE_S for i, _ in shown]
    return np.cumsum([0.0, *lengths_s[:-1]]).tolist()


def _check(spikes: Spikes, sound: Sound, repeats: Sequence[str], clock: Clock) -> None:
    """Raise a ValueError if a cell was not recorded with a sound, or the unit of times is wrong."""
    name, length_s = sound.name, len(sound.pressure) / clock.sample_rate_hz
    if absent := [cell for cell, of_cell in spikes.items() if name not in of_cell]:
        raise ValueError(
            f"sound {name!r}: no row of {_some(absent)}; a row without a time says that a cell "
            "fired nothing, and cells that were recorded with other sounds belong into another "
            "folder, as another animal"
        )
    lost = {}
    for cell, of_cell in spikes.items():
        fired, without = sum(map(len, of_cell[name].values())), len(repeats) - len(of_cell[name])
        if fired / len(of_cell[name]) * without >= LOST_SPIKES:
            lost[cell] = f"{cell} in {without} of {len(repeats)}"
    if lost:
        raise ValueError(
            f"sound {name!r}: playings without a row, although the cell fires in the others: "
            f"{_some(list(lost.values()))}; if it was not recorded in them leave out the cell, or "
            "those playings of all cells; if it was, a row without a time says so"
        )
    times_s = np.concatenate([t for of_cell in spikes.values() for t in of_cell[name].values()])
    if len(times_s) and (times_s > length_s).mean() > 0.5:
        raise ValueError(
            f"sound {name!r} lasts {length_s:.3f} s, but most spikes come later (median "
            f"{np.median(times_s):.3f} s); times count from the beginning of the sound, in seconds "
            "where the column is time_s, in milliseconds where it is time_ms"
        )


# Files --------------------------------------------------------------------------------------------


def _read_rows(folder: Path, by_name: Mapping[str, str]) -> _Rows:
    """All rows of all CSV files."""
    paths = (p for p in folder.rglob("*.csv") if p.name != "manifest.csv")
    files = sorted((p for p in paths if not p.name.startswith(".")), key=numeric_order)
    if not files:
        raise ValueError(f"{folder}: no CSV file of spike times in it")
    rows = _Rows(defaultdict(lambda: defaultdict(dict)), {})
    for path in files:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file)
            columns = [column.strip() for column in next(lines, [])]
            _require_columns(path, columns)
            for line in filter(any, lines):
                try:
                    _take(rows, path, _row(columns, line), by_name)
                except ValueError as error:
                    raise ValueError(f"{path}, line {lines.line_num}: {error}") from error
    if not rows.spikes:
        raise ValueError(f"{folder}: no row of a spike in {_some([p.name for p in files])}")
    return rows


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    times = [column for column in SECONDS if column in columns]
    if len(times) != 1 or not {"sound", "repeat"} <= set(columns):
        raise ValueError(
            f"{path}: has the columns {', '.join(columns) or 'none'}; needed are sound, repeat and "
            "time_s (or time_ms), and cell unless the file is of one cell"
        )


def _row(columns: Sequence[str], line: Sequence[str]) -> dict[str, str]:
    if len(line) != len(columns):
        raise ValueError(f"{len(line)} cells in a row of {len(columns)} columns")
    return dict(zip(columns, map(str.strip, line), strict=True))


def _take(rows: _Rows, path: Path, row: Mapping[str, str], by_name: Mapping[str, str]) -> None:
    """Add what one row says."""
    if row["sound"] not in by_name:
        raise ValueError(f"no sound file {row['sound']!r}; there are {_some(sorted(by_name))}")
    sound, repeat, cell = by_name[row["sound"]], row["repeat"], row.get("cell", path.stem)
    if not repeat or not cell:
        raise ValueError("a row needs a repeat and a cell")
    times_s = rows.spikes[cell][sound].setdefault(repeat, [])
    column = next(column for column in SECONDS if column in row)
    if row[column]:
        time_s = SECONDS[column] * float(row[column])
        if not np.isfinite(time_s):
            raise ValueError(f"{column} is {row[column]}; leave the spike out")
        times_s.append(time_s)
    if row.get("start_s"):
        start_s = float(row["start_s"])
        if rows.starts_s.setdefault((sound, repeat), start_s) != start_s:
            raise ValueError(
                f"start_s is {start_s}, and {rows.starts_s[sound, repeat]} in another row of that "
                "sound and repeat; cells that were not recorded together have no common time: "
                "leave the column out"
            )


def _by_name(folder: Path, files: Sequence[AudioFile]) -> dict[str, str]:
    """What rows may call a sound, and its name: paths in the folder, or file names if single."""
    names: dict[str, set[str]] = defaultdict(set)
    for file in files:
        relative, name = file.path.relative_to(folder), _name(folder, file)
        for called in (relative.as_posix(), name, relative.name, relative.stem):
            names[called].add(name)
    return {called: values.pop() for called, values in names.items() if len(values) == 1}


def _name(folder: Path, file: AudioFile) -> str:
    return file.path.relative_to(folder).with_suffix("").as_posix()


def _manifest_splits(folder: Path) -> dict[str, str]:
    """Splits of files, where the manifest has them."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [{k: (v or "").strip() for k, v in row.items() if k} for row in csv.DictReader(file)]
    return {row["file"]: row["split"] for row in rows if row.get("split")}


def _ordered(names: Mapping | set[str]) -> list[str]:
    """Names as people number them."""
    return sorted(names, key=lambda name: numeric_order(Path(name.replace("/", " "))))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
