"""Animals from NWB files, of `icsim.importers.nwb_export` or of a laboratory. Needs pynwb.

What is looked for, and what an export holds:

    stimulus/templates/<sound>              TimeSeries: pressure [pascal], `(T,)`, with its rate
    intervals/presentations                 TimeIntervals, in order of time: start_time and
                                            stop_time [s], stimulus_name, timeseries (which rows of
                                            the counts)
    processing/ecephys/multi_unit_activity  TimeSeries: spikes a bin, `(N, C)`, with the time at
                                            which each bin begins [s], or a rate
    processing/hearing/animal               table of one row: status, role
    processing/hearing/abr_thresholds       table: frequency_hz, threshold_db_spl; if measured
    processing/hearing/sounds               table: stimulus_name, kind, source, split

A file must have the stimuli (as templates, or under stimulus/presentation), a table that says which
began when, and either counts or spike times of units; the rest may be missing. Where nothing was
played there is no waveform: silence, as long as the table says, of the kind `spontaneous`. Times
count from the beginning of the session. NWB allows no `/` and `:` in names: in those of sounds they
are written `%2F` and `%3A`, and `%` is written `%25`.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icsim import validation
from icsim.clock import Clock
from icsim.extras import extra
from icsim.mua import count_spikes
from icsim.recording import Recording, SoundEntry
from icsim.sound import (
    REFERENCE_PA,
    SPONTANEOUS,
    Sound,
    resample,
)

COUNTS = "multi_unit_activity"
"""Name of the TimeSeries of counts (chosen here)."""

PRESENTATIONS = "presentations"
"""Name of the table of presentations (chosen here)."""

PASCALS = ("pascal", "pascals", "pa")
"""Units, in small letters, that need no calibration."""

SILENCE = "silence"
"""Source of all silence (chosen here)."""

SILENCE_STEP_S = 0.01
"""Silence is cut to a multiple of this, so that its lengths in two animals agree [s] (chosen
here)."""

RATE_TOLERANCE = 1e-5
"""How far a response rate may be off, relative: 0.2 bins in half a minute (chosen here)."""

NWB = Any
"""pynwb is imported where it is needed, so its types have no names here."""


@dataclasses.dataclass(frozen=True)
class _Shown:
    """A row of the table of presentations."""

    number: int
    sound: str
    start_s: float
    stop_s: float
    """When it ended, which says how long silence is."""
    first_bin: int | None
    """Where its counts begin, if the table says so."""
    silence_s: float = 0.0
    """How long nothing was played, if nothing was."""


def read_nwb(
    path: str | Path,
    *,
    status: str | None = None,
    role: str | None = None,
    split: str = "train",
    full_scale_db_spl: float | None = None,
    counts: str = COUNTS,
    presentations: str = PRESENTATIONS,
    stimulus_column: str = "stimulus_name",
    spontaneous: Collection[str] = (),
    clock: Clock | None = None,
) -> tuple[str, list[Sound], Recording]:
    """Read one animal: what `icsim.store.create` and `Cohort.add_animal` take.

    Args:
        path: An NWB file.
        status: NH or HI; None if the file says so.
        role: seen or unseen; None for what the file says, or seen.
        split: Split of the sounds of which the file does not say it.
        full_scale_db_spl: Where stimuli are not in pascals: the level [dB SPL] of a sound whose RMS
            is 1 in the file's unit.
        counts: Name of the TimeSeries of counts, `(N,)` or `(N, C)`, at the clock's rate of bins;
            without one of this name, the spike times of the units are counted.
        presentations: Name of the table of presentations; `trials` and `epochs` are others.
        stimulus_column: Its column with the names of the stimuli.
        spontaneous: Names of stimuli without waveform, during which nothing was played; others are
            refused, unless the file's table of sounds says that their kind is `spontaneous`.
        clock: Sample rate that stimuli are brought to, and bins that spikes are counted in; the
            published one if not given.

    Returns:
        The animal's name, the sounds that it heard, and its recording, in order of time. Counts are
        read from the file when they are asked for, once. Bins of a series that does not begin with
        the stimulus are the nearest ones, off by half a bin at most.

    Raises:
        ValueError: If something is missing or does not fit; the message says what.
        ImportError: If pynwb is missing.
    """
    path, clock = Path(path), clock or Clock()
    with _opened(path) as file:
        shown = _presented(file, presentations, stimulus_column, counts)
        tables = _hearing(file)
        described = {row["stimulus_name"]: row for row in tables.get("sounds", [])}
        silent = _silent(file, shown, described, spontaneous)
        shown = [_with_duration(p, clock) if p.sound in silent else p for p in shown]
        presented = dict.fromkeys(p.sound for p in shown)
        names = sorted(presented, key=[*described, *presented].index)
        silence = {p.sound: _silence(p, split, clock) for p in shown if p.silence_s}
        sounds = [
            silence.get(n) or _sound(file, n, described.get(n, {}), split, full_scale_db_spl, clock)
            for n in names
        ]
        lengths = [len(sound.pressure) // clock.bin_samples for sound in sounds]
        bins = dict(zip(names, lengths, strict=True))
        channels, blocks = _blocks(path, file, counts, shown, bins, clock)
        recording = Recording(
            **_said_of_animal(tables, status, role),
            channels=channels,
            presentations=[(names.index(p.sound), p.start_s / 3600) for p in shown],
            counts=blocks,
        )
        name = _name(file, path)
        entries = [
            SoundEntry(i, bins=bins[names[i]], **entry)
            for i, entry in enumerate(validation.sound_attributes(sounds, clock))
        ]
        validation.animal_attributes(name, recording, entries, clock)
    return name, sounds, recording


def _blocks(
    path: Path, file: NWB, counts: str, shown: list[_Shown], bins: Mapping[str, int], clock: Clock
) -> tuple[int, Iterator[np.ndarray | Tensor]]:
    """How many channels there are, and counts of each presentation, read when asked for."""
    if (series := _series(file, counts)) is not None:
        firsts = _first_bins(series, shown, bins, clock)
        channels = 1 if series.data.ndim == 1 else series.data.shape[1]
        return channels, _binned(path, counts, firsts, shown, bins)
    return len(_spike_times(file, counts)), _counted(path, counts, shown, bins, clock)


def _name(file: NWB, path: Path) -> str:
    """Of the animal: the subject's, or else the file's, in letters that a cohort takes."""
    subject = file.subject.subject_id if file.subject is not None else None
    return re.sub(r"[^A-Za-z0-9_-]+", "-", subject or path.stem).strip("-_")


def _said_of_animal(tables: Mapping, status: str | None, role: str | None) -> dict[str, Any]:
    """Fields of a recording that a file's tables say: status, role and thresholds."""
    animal, thresholds = tables.get("animal", [{}])[0], tables.get("abr_thresholds", [])
    if status is None and "status" not in animal:
        raise ValueError("does not say how the animal hears; give its status, NH or HI")
    return {
        "status": status or animal["status"],
        "role": role or animal.get("role", "seen"),
        "thresholds_db_spl": [float(row["threshold_db_spl"]) for row in thresholds] or None,
        "abr_frequencies_hz": [float(row["frequency_hz"]) for row in thresholds] or None,
    }


# What was heard ----------------------------------------------------------------------------------


def _presented(file: NWB, name: str, column: str, counts: str) -> list[_Shown]:
    """The rows of the table of presentations in order of time."""
    tables = dict(file.intervals or {})
    tables |= {t.name: t for t in (file.trials, file.epochs) if t is not None}
    if name not in tables:
        raise ValueError(
            f"has no table of presentations {name!r}; its tables of intervals are "
            f"{_listed(tables)}: name the one to read"
        )
    table = tables[name]
    if column not in table.colnames:
        raise ValueError(
            f"the table {name!r} has no column {column!r} of stimulus names; its columns are "
            f"{_listed(table.colnames)}: name the one to read"
        )
    starts_s, stops_s = (np.asarray(table[name][:], float) for name in ("start_time", "stop_time"))
    names, rows = table[column][:], []
    for row, (start_s, stop_s, sound) in enumerate(zip(starts_s, stops_s, names, strict=True)):
        refers = table["timeseries"][row] if "timeseries" in table.colnames else []
        firsts = [r.idx_start for r in refers if r.timeseries and r.timeseries.name == counts]
        first = int(firsts[0]) if firsts else None
        rows.append(_Shown(row, str(sound), float(start_s), float(stop_s), first))
    if not np.isfinite(starts_s).all():
        bad = np.flatnonzero(~np.isfinite(starts_s)).tolist()
        raise ValueError(f"presentations {bad} of {name!r} have no start_time; leave them out")
    if not rows:
        raise ValueError(f"the table {name!r} is empty; an animal must have heard a sound")
    return sorted(rows, key=lambda p: p.start_s)


def _sound(
    file: NWB,
    name: str,
    described: Mapping[str, str],
    split: str,
    full_scale_db_spl: float | None,
    clock: Clock,
) -> Sound:
    """A stimulus in pascals at the clock's sample rate."""
    stimuli = _stimuli(file)
    if name not in stimuli:
        raise ValueError(
            f"{name!r} was presented, but has no waveform; the stimuli are {_listed(stimuli)}. "
            f"If nothing was played, say so: --spontaneous '[{name}]' makes it silence"
        )
    series = stimuli[name]
    if series.rate is None or len(series.data.shape) != 1:
        raise ValueError(
            f"stimulus {name!r} must be one channel (T,) with a sample rate, not "
            f"{tuple(series.data.shape)} at {series.rate} Hz; average its channels, or resample it"
        )
    samples = np.asarray(series.data[:], np.float64) * series.conversion + series.offset
    if series.unit.lower() not in PASCALS:
        if full_scale_db_spl is None:
            raise ValueError(
                f"stimulus {name!r} is in {series.unit!r}, not in pascals; give "
                "full_scale_db_spl, the level of a sound whose RMS is 1 in that unit"
            )
        samples *= REFERENCE_PA * 10 ** (full_scale_db_spl / 20)
    rate_hz = clock.sample_rate_hz
    return Sound(
        name=original_name(name),
        kind=str(described.get("kind", "unknown")),
        source=str(described.get("source", original_name(name))),
        split=str(described.get("split", split)),
        pressure=resample(torch.from_numpy(samples), float(series.rate), rate_hz).float(),
    )


def _stimuli(file: NWB) -> dict[str, NWB]:
    """Waveforms by name."""
    return dict(file.stimulus) | dict(file.stimulus_template)


def _silent(
    file: NWB, shown: list[_Shown], described: Mapping[str, Mapping], spontaneous: Collection[str]
) -> set[str]:
    """Names of presentations of nothing."""
    named = {n for n, row in described.items() if row.get("kind") == SPONTANEOUS} | set(spontaneous)
    played = _stimuli(file)
    if both := set(spontaneous) & set(played):
        raise ValueError(f"{_listed(both)} has a waveform, so it is not spontaneous: leave it out")
    return {p.sound for p in shown if p.sound in named and p.sound not in played}


def _with_duration(p: _Shown, clock: Clock) -> _Shown:
    """A presentation of silence, whose length is a part of its name: each length is another sound.

    Raises:
        ValueError: If the table does not say how long it was.
    """
    steps = (p.stop_s - p.start_s + 1 / clock.bin_rate_hz) / SILENCE_STEP_S
    if not math.isfinite(steps) or steps < 1:
        raise ValueError(
            f"presentation {p.number} ({p.sound}) from {p.start_s} to {p.stop_s} s: silence has no "
            "waveform that says how long it is; give a stop_time"
        )
    silence_s = math.floor(steps) * SILENCE_STEP_S
    return dataclasses.replace(p, sound=f"{p.sound} {silence_s:.2f} s", silence_s=silence_s)


def _silence(p: _Shown, split: str, clock: Clock) -> Sound:
    pressure = torch.zeros(round(p.silence_s * clock.sample_rate_hz))
    return Sound(original_name(p.sound), SPONTANEOUS, SILENCE, split, pressure)


def _hearing(file: NWB) -> dict[str, list[dict[str, Any]]]:
    """The rows of the tables in processing/hearing, as far as there are any."""
    module = dict(file.processing or {}).get("hearing")
    tables = {} if module is None else module.data_interfaces
    return {
        name: [
            dict(zip(tables[name].colnames, row, strict=True))
            for row in zip(*(tables[name][c][:] for c in tables[name].colnames), strict=True)
        ]
        for name in ("animal", "abr_thresholds", "sounds")
        if name in tables
    }


# What was answered -------------------------------------------------------------------------------


def _series(file: NWB, name: str) -> NWB | None:
    """The TimeSeries of counts, if there is one."""
    named = [series for series in _all_series(file) if series.name == name]
    if len(named) > 1:
        raise ValueError(f"{len(named)} TimeSeries are called {name!r}; rename all but one")
    if named and (named[0].conversion != 1 or named[0].offset != 0 or named[0].data.ndim > 2):
        raise ValueError(
            f"{name!r} must be counts (N, C) as they are, not {tuple(named[0].data.shape)} with "
            f"a conversion of {named[0].conversion} and an offset of {named[0].offset}"
        )
    return named[0] if named else None


def _first_bins(
    series: NWB, shown: list[_Shown], bins: Mapping[str, int], clock: Clock
) -> list[int]:
    """Row of the counts at which each presentation begins; refused if its bins are not there."""
    times_s = None if series.timestamps is None else np.asarray(series.timestamps[:], np.float64)
    if times_s is None:
        _require_rate(series.name, series.rate, RATE_TOLERANCE, clock)
    firsts = []
    for p in shown:
        first = p.first_bin
        if first is None:
            if times_s is None:
                first = round((p.start_s - series.starting_time) * series.rate)
            else:
                first = int(np.searchsorted(times_s, p.start_s - 0.5 / clock.bin_rate_hz))
        last = first + bins[p.sound] - 1
        if not 0 <= first <= last < len(series.data):
            raise ValueError(
                f"presentation {p.number} ({p.sound}) at {p.start_s:.3f} s needs rows {first} to "
                f"{last} of {series.name!r}, which has {len(series.data)}; "
                "leave the presentation out, or complete the counts"
            )
        if times_s is not None:
            _require_times(series.name, p, times_s[first : last + 1], clock)
        firsts.append(first)
    return firsts


def _require_times(name: str, p: _Shown, times_s: np.ndarray, clock: Clock) -> None:
    """Bins begin with the presentation, and follow each other at the response rate."""
    if abs(times_s[0] - p.start_s) > 0.501 / clock.bin_rate_hz:
        raise ValueError(
            f"presentation {p.number} ({p.sound}) begins at {p.start_s:.6f} s, but the bin of "
            f"{name!r} at {times_s[0]:.6f} s; count the spikes from the beginning of the sound"
        )
    intervals = len(times_s) - 1
    if intervals:
        rate = intervals / max(times_s[-1] - times_s[0], 1e-9)
        _require_rate(name, rate, max(RATE_TOLERANCE, 0.5 / intervals), clock)


def _require_rate(name: str, rate: float, tolerance: float, clock: Clock) -> None:
    if abs(rate / clock.bin_rate_hz - 1) > tolerance:
        raise ValueError(
            f"{name!r} has a response rate of {rate:.6f} Hz, or gaps; "
            f"{clock.bin_rate_hz} Hz is needed, as counts cannot be resampled: count the spikes "
            "again, or give spike times, or the clock of these counts"
        )


def _binned(
    path: Path, name: str, firsts: list[int], shown: list[_Shown], bins: Mapping[str, int]
) -> Iterator[np.ndarray]:
    """Counts `(N, C)` of each presentation from a series."""
    with _opened(path) as file:
        (data,) = (series.data for series in _all_series(file) if series.name == name)
        for first, p in zip(firsts, shown, strict=True):
            block = np.asarray(data[first : first + bins[p.sound]])
            if block.dtype.kind == "f":
                if not np.array_equal(block, np.rint(block)):
                    raise ValueError(
                        f"{name!r} has values that are no counts, as in presentation {p.number} "
                        f"({p.sound}); give whole numbers of spikes"
                    )
                block = block.astype(np.int64)
            yield block.reshape(len(block), -1)


def _counted(
    path: Path, counts: str, shown: list[_Shown], bins: Mapping[str, int], clock: Clock
) -> Iterator[Tensor]:
    """Counts `(N, C)` of each presentation from the spike times of the units."""
    with _opened(path) as file:
        units = _spike_times(file, counts)
    for p in shown:
        end_s = p.start_s + bins[p.sound] / clock.bin_rate_hz
        # a little more than what is counted, as edges are the affair of `count_spikes`
        near = [u[slice(*np.searchsorted(u, (p.start_s - 1e-3, end_s + 1e-3)))] for u in units]
        counted = (count_spikes(u, p.start_s, bins[p.sound], clock.bin_rate_hz) for u in near)
        yield torch.stack(list(counted), -1)


def _spike_times(file: NWB, counts: str) -> list[np.ndarray]:
    """Spike times [s] of each unit, sorted."""
    if file.units is None or "spike_times" not in file.units.colnames:
        raise ValueError(
            f"has no counts {counts!r} and no spike times of units; its TimeSeries are "
            f"{_listed(series.name for series in _all_series(file))}: name that of the counts"
        )
    times_s = file.units["spike_times"]
    return [np.sort(np.asarray(times_s[unit], np.float64)) for unit in range(len(file.units))]


# Files and names ---------------------------------------------------------------------------------


def load_pynwb() -> NWB:
    """pynwb, which is no requirement of anything else.

    Raises:
        ImportError: If it is missing; the message says how to install it.
    """
    with extra("nwb"):
        import pynwb
        import pynwb.epoch
    return pynwb


def written_name(name: str) -> str:
    """The name of a sound as NWB allows it.

    >>> written_name("50 % a/b")
    '50 %25 a%2Fb'
    """
    return name.replace("%", "%25").replace("/", "%2F").replace(":", "%3A")


def original_name(name: str) -> str:
    """The opposite of `written_name`.

    >>> original_name("50 %25 a%2Fb")
    '50 % a/b'
    """
    return name.replace("%3A", ":").replace("%2F", "/").replace("%25", "%")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[NWB]:
    """The contents of a file; whatever is wrong with them is said with its path."""
    pynwb = load_pynwb()
    with contextlib.ExitStack() as stack:
        try:
            io = stack.enter_context(pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True))
            file = io.read()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: cannot be read as NWB ({error}); check the file") from error
        try:
            yield file
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _all_series(file: NWB) -> list[NWB]:
    kind = load_pynwb().TimeSeries
    return [series for series in file.objects.values() if isinstance(series, kind)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
