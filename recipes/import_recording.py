"""Make a cohort of real recordings.

`python -m recipes.import_recording --kind nwb --path FILES --out COHORT`

Kinds: `nwb`, an NWB file or a folder of them, an animal each; `frames`, a folder of frame files;
`broadband`, a folder of WAV files, each a trial of one stimulus, whose channels are electrodes;
`spike_times`, a folder of WAV files and of CSV files of spike times; `ns1`, the data set NS1.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from icsim.importers.frames import folder_frames, numeric_order, read_frames
from icsim.importers.ns1 import read_ns1
from icsim.importers.nwb import COUNTS, PRESENTATIONS, read_nwb
from icsim.importers.spike_times import read_spike_times
from icsim.importers.splits import shared_sources, split_by_source, with_splits
from icsim.mua import count_spikes, multi_unit_activity
from icsim.recording import Recording
from icsim.sound import BIN_SAMPLES, Sound, calibrate, find_audio, read, read_mono
from icsim.store import Cohort, create
from recipes import import_report
from recipes.ranges import (
    Count,
    LevelDbSpl,
    NotEmptyStr,
    Seconds,
    SecondsOrZero,
    UnitDbSpl,
    checked,
)
from recipes.state import claim, run, write_json

Imported = tuple[str, list[Sound], Recording]
"""An animal's name, the sounds that it heard, and its recording."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to import, and as what."""

    kind: Literal["nwb", "frames", "broadband", "spike_times", "ns1"]
    """What the recordings are."""
    path: NotEmptyStr
    """File or folder of the recordings."""
    out: NotEmptyStr
    """Folder: the cohort is `cohort.zarr` in it."""
    name: NotEmptyStr | None = None
    """The animal's; by default what an NWB file says, and otherwise the folder's."""
    status: Literal["NH", "HI"] | None = None
    """Normal hearing or hearing impaired; needed unless NWB files say it."""
    role: Literal["seen", "unseen"] | None = None
    """Whether networks train on it; by default what an NWB file says, and otherwise seen."""
    split: Literal["train", "validation", "test", "auto"] = "train"
    """Split of all sounds of which the files do not say it; `auto` deals the sources of all sounds
    into the three, whatever the files say, the same each time."""
    sound_kind: NotEmptyStr = "unknown"
    """Class of all sounds of which the files do not say it: speech, music, ..."""

    full_scale_db_spl: UnitDbSpl | None = None
    """nwb, where stimuli are not in pascals, and spike_times: the level of a sound whose RMS is 1
    in the file's unit [dB SPL]; 93.98 is a pascal."""
    counts: NotEmptyStr = COUNTS
    """nwb: the TimeSeries of counts; without one, spike times of the units are counted."""
    presentations: NotEmptyStr = PRESENTATIONS
    """nwb: the table of presentations."""
    stimulus_column: NotEmptyStr = "stimulus_name"
    """nwb: its column of stimulus names."""
    spontaneous: list[NotEmptyStr] = dataclasses.field(default_factory=list)
    """nwb: stimuli without waveform during which nothing was played: silence."""

    frames_a_sound: Count = 100
    """frames: how many make one sound."""

    stimulus: NotEmptyStr | None = None
    """broadband: the sound that was played in each trial, a sound file."""
    onset_s: SecondsOrZero | None = None
    """broadband: when it began, since the trial's file began [s]."""
    level_db_spl: LevelDbSpl | None = None
    """broadband: its RMS level [dB SPL]."""
    interval_s: Seconds = 20.0
    """broadband: from the beginning of a presentation to that of the next [s]."""
    polarity: Literal["positive", "negative"] = "positive"
    """broadband: which crossings are counted; positive ones are the published."""
    spikes: NotEmptyStr | None = None
    """broadband: a folder of a sorted unit, another channel: of its text file with the stimulus's
    name each line is a trial, spike times since the onset [ms]."""
    spike_lines: list[Count] | None = None
    """broadband: which line, counted from 1, belongs to each trial; by default in order."""

    __post_init__ = checked


def import_recording(config: Config) -> str:
    """Import what is not there yet; returns the path of the cohort.

    Beside it `summary.json` and `import.png` say what came in.

    Raises:
        ValueError: If the recordings cannot be used, or a source is in two splits; nothing is
            listed then.
    """
    out = Path(config.out)
    sounds, recordings = together(READERS[config.kind](config))
    if config.split == "auto":
        splits = split_by_source(sounds, heard_twice(sounds, recordings.values()))
        sounds = with_splits(sounds, splits)
    require_apart(sounds)
    claim(out, config)
    cohort = _begun(out / "cohort.zarr", sounds, config)
    for name, recording in recordings.items():
        if name not in cohort.animals():
            cohort.add_animal(name, recording)
    import_report.picture(cohort).savefig(out / "import.png", dpi=110)
    write_json(out / "summary.json", import_report.summary(cohort))
    return cohort.path


def heard_twice(sounds: Sequence[Sound], recordings: Iterable[Recording]) -> set[str]:
    """Names of the sounds that no animal heard only once."""
    once = set()
    for recording in recordings:
        times = Counter(sound for sound, _ in recording.presentations)
        once |= {sound for sound, count in times.items() if count == 1}
    return {s.name for number, s in enumerate(sounds) if number not in once}


def require_apart(sounds: Sequence[Sound]) -> None:
    """Raise a ValueError that names the sources that are in two splits, if any is."""
    if shared := shared_sources(sounds):
        some = [f"{source} ({', '.join(found)})" for source, found in list(shared.items())[:5]]
        more = f" and {len(shared) - 5} more" if len(shared) > 5 else ""
        raise ValueError(
            f"sources in two splits: {'; '.join(some)}{more}. A model is tested on talkers and "
            "pieces that it was not trained with: give all sounds of a source one split, or take "
            "--split auto, which deals the sources"
        )


def together(animals: Sequence[Imported]) -> tuple[list[Sound], dict[str, Recording]]:
    """One list of sounds for all animals; sounds of one name must be the same.

    Raises:
        ValueError: If two sounds or animals of one name differ.
    """
    sounds: dict[str, Sound] = {}
    recordings: dict[str, Recording] = {}
    for name, heard, recording in animals:
        if name in recordings:
            raise ValueError(f"two animals are called {name!r}; give each file its own subject_id")
        for sound in heard:
            known = sounds.setdefault(sound.name, sound)
            said = [(s.kind, s.source, s.split) for s in (known, sound)]
            if said[0] != said[1]:
                raise ValueError(
                    f"{name}: its sound {sound.name!r} has kind, source and split {said[1]}, and "
                    f"{said[0]} in the animals before; say the same in all files"
                )
            if not torch.equal(known.pressure, sound.pressure):
                raise ValueError(
                    f"{name}: its sound {sound.name!r} is not that of the animals before; "
                    "give different sounds different names"
                )
        places = {sound: place for place, sound in enumerate(sounds)}
        shown = [(places[heard[i].name], time_h) for i, time_h in recording.presentations]
        recordings[name] = dataclasses.replace(recording, presentations=shown)
    return list(sounds.values()), recordings


# Readers -----------------------------------------------------------------------------------------


def from_nwb(config: Config) -> list[Imported]:
    """Each NWB file as an animal."""
    path = Path(config.path)
    files = sorted(path.glob("*.nwb"), key=numeric_order) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no file NAME.nwb in it")
    if config.name and len(files) > 1:
        raise ValueError(f"{len(files)} animals cannot all be called {config.name!r}; leave it out")
    read_one = functools.partial(
        read_nwb,
        status=config.status,
        role=config.role,
        split=_split(config),
        full_scale_db_spl=config.full_scale_db_spl,
        counts=config.counts,
        presentations=config.presentations,
        stimulus_column=config.stimulus_column,
        spontaneous=config.spontaneous,
    )
    return [(config.name or name, *rest) for name, *rest in map(read_one, files)]


def from_frames(config: Config) -> list[Imported]:
    """A folder of frames as an animal."""
    _require(config, "status")
    sounds, recording = read_frames(
        folder_frames(config.path),
        config.frames_a_sound,
        status=config.status,
        role=config.role or "seen",
        kind=config.sound_kind,
        split=_split(config),
    )
    return [(config.name or Path(config.path).name, sounds, recording)]


def from_broadband(config: Config) -> list[Imported]:
    """A folder of trials as an animal that heard one sound several times."""
    _require(config, "status", "stimulus", "onset_s", "level_db_spl")
    stimulus, trials = Path(config.stimulus), sorted(find_audio(config.path), key=numeric_order)
    pressure = calibrate(read_mono(stimulus), config.level_db_spl)
    sound = Sound(stimulus.stem, config.sound_kind, stimulus.stem, _split(config), pressure)
    bins = len(pressure) // BIN_SAMPLES
    counts = [_crossings(trial, config, bins) for trial in trials]
    if config.spikes is not None:
        units = _sorted_spikes(config, stimulus.stem, len(trials), bins)
        counts = [torch.cat(pair) for pair in zip(counts, units, strict=True)]
    recording = Recording(
        status=config.status,
        role=config.role or "seen",
        thresholds_db_spl=None,
        abr_frequencies_hz=None,
        channels=len(counts[0]),
        presentations=[(0, n * config.interval_s / 3600) for n in range(len(trials))],
        counts=[block.T for block in counts],
    )
    return [(config.name or Path(config.path).name, [sound], recording)]


def from_spike_times(config: Config) -> list[Imported]:
    """A folder of sounds and of spike times of cells as an animal."""
    _require(config, "status", "full_scale_db_spl")
    sounds, recording = read_spike_times(
        config.path,
        status=config.status,
        full_scale_db_spl=config.full_scale_db_spl,
        role=config.role or "seen",
        kind=config.sound_kind,
        split=_split(config),
    )
    return [(config.name or Path(config.path).name, sounds, recording)]


def from_ns1(config: Config) -> list[Imported]:
    """The cells of NS1 as an animal."""
    sounds, recording = read_ns1(
        config.path,
        role=config.role or "seen",
        kind=config.sound_kind,
        split=_split(config),
    )
    return [(config.name or "ns1", sounds, recording)]


READERS = {
    "nwb": from_nwb,
    "frames": from_frames,
    "broadband": from_broadband,
    "spike_times": from_spike_times,
    "ns1": from_ns1,
}


def _split(config: Config) -> str:
    """Split of sounds of which no file says it; where sources are dealt, it is replaced."""
    return "train" if config.split == "auto" else config.split


def _crossings(trial: Path, config: Config, bins: int) -> Tensor:
    """Multi-unit activity of a file's channels, `(C, N)`."""
    trace, sample_rate = read(trial)
    sign = -1 if config.polarity == "negative" else 1
    try:
        return multi_unit_activity(sign * trace, sample_rate, config.onset_s, bins)
    except ValueError as error:
        raise ValueError(f"{trial}: {error}") from error


def _sorted_spikes(config: Config, stimulus: str, trials: int, bins: int) -> list[Tensor]:
    """Counts of a sorted unit in each trial, `(1, N)`."""
    path = Path(config.spikes) / f"{stimulus}.txt"
    if not path.is_file():
        raise ValueError(f"{path}: no such file of spike times; check --spikes and the stimulus")
    lines = path.read_text().splitlines()
    order = config.spike_lines or list(range(1, len(lines) + 1))
    if len(order) != trials or not all(1 <= line <= len(lines) for line in order):
        raise ValueError(
            f"{path}: {len(lines)} lines, of which {order} for {trials} trials; "
            "say with --spike_lines which line belongs to each trial"
        )
    try:
        times_s = [np.array(lines[line - 1].split(), float) / 1e3 for line in order]
    except ValueError as error:
        raise ValueError(f"{path}: {error}; a line holds times [ms] between spaces") from error
    return [count_spikes(times, 0.0, bins).unsqueeze(0) for times in times_s]


def _require(config: Config, *fields: str) -> None:
    missing = [f"--{field}" for field in fields if getattr(config, field) is None]
    if missing:
        raise ValueError(f"a recording of kind {config.kind} needs {', '.join(missing)}")


def _begun(path: Path, sounds: list[Sound], config: Config) -> Cohort:
    """The cohort with its sounds; opened if they were stored before."""
    try:
        return create(path, sounds, {"simulated": False, "imported_from": config.kind})
    except ValueError as error:
        if "finished cohort" not in str(error):
            raise
    cohort = Cohort.open(path)
    stored, wanted = (
        [(s.name, s.samples) for s in cohort.sounds],
        [(s.name, len(s.pressure)) for s in sounds],
    )
    if stored != wanted:
        raise ValueError(f"{path}: holds other sounds than {config.path}; choose another --out")
    return cohort


if __name__ == "__main__":
    path = run(import_recording, Config)
    print(import_report.printed(json.loads((Path(path).parent / "summary.json").read_text())))
    print(path)
