"""Make a cohort of real recordings.

`python -m recipes.import_recording --kind nwb --path FILES --out COHORT`

Kinds: `nwb`, an NWB file or a folder of them, an animal each; `frames`, a folder of frame files;
`broadband`, a folder of WAV files, each a trial of one stimulus, whose channels are electrodes;
`spike_times`, a folder of WAV files and of CSV files of spike times; `ns1`, the data set NS1.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

from icsim.description import summary
from icsim.files import write_json
from icsim.importers.broadband import read_broadband
from icsim.importers.frames import folder_frames, numeric_order, read_frames
from icsim.importers.joined import Imported, heard_twice, require_apart, together
from icsim.importers.ns1 import read_ns1
from icsim.importers.nwb import COUNTS, PRESENTATIONS, read_nwb
from icsim.importers.spike_times import read_spike_times
from icsim.importers.splits import split_by_source, with_splits
from icsim.recording import Recording
from icsim.sound import Sound
from icsim.store import Cohort, create
from recipes.reports import recording as report
from recipes.running.commands import claim, run
from recipes.running.ranges import (
    Count,
    LevelDbSpl,
    NotEmptyStr,
    Seconds,
    SecondsOrZero,
    UnitDbSpl,
    checked,
)


@dataclasses.dataclass(frozen=True)
@checked
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
    report.picture(cohort).savefig(out / "import.png", dpi=110)
    write_json(out / "summary.json", summary(cohort))
    return cohort.path


# Readers -----------------------------------------------------------------------------------------


def from_nwb(config: Config) -> list[Imported]:
    """Each NWB file as an animal."""
    path = Path(config.path)
    files = sorted(path.glob("*.nwb"), key=numeric_order) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: no file NAME.nwb in it")
    if config.name and len(files) > 1:
        raise ValueError(f"{len(files)} animals cannot all be called {config.name!r}; leave it out")
    names = ("status", "role", "full_scale_db_spl", "counts", "presentations", "stimulus_column")
    settings = _settings(config, *names, "spontaneous") | {"split": _split(config)}
    imported = [read_nwb(file, **settings) for file in files]
    return [(config.name or name, sounds, recording) for name, sounds, recording in imported]


def from_frames(config: Config) -> list[Imported]:
    """A folder of frames as an animal."""
    files = folder_frames(config.path)
    return _one(config, read_frames(files, config.frames_a_sound, **_of_one(config, "status")))


def from_broadband(config: Config) -> list[Imported]:
    """A folder of trials as an animal that heard one sound several times."""
    needed = _of_one(config, "status", "stimulus", "onset_s", "level_db_spl")
    more = _settings(config, "interval_s", "polarity", "spikes", "spike_lines")
    return _one(config, read_broadband(config.path, **needed, **more))


def from_spike_times(config: Config) -> list[Imported]:
    """A folder of sounds and of spike times of cells as an animal."""
    return _one(
        config, read_spike_times(config.path, **_of_one(config, "status", "full_scale_db_spl"))
    )


def from_ns1(config: Config) -> list[Imported]:
    """The cells of NS1 as an animal."""
    return _one(config, read_ns1(config.path, **_of_one(config)), "ns1")


READERS = {
    "nwb": from_nwb,
    "frames": from_frames,
    "broadband": from_broadband,
    "spike_times": from_spike_times,
    "ns1": from_ns1,
}


def _one(
    config: Config, read: tuple[list[Sound], Recording], name: str | None = None
) -> list[Imported]:
    return [(config.name or name or Path(config.path).name, *read)]


def _settings(config: Config, *names: str) -> dict:
    return {name: getattr(config, name) for name in names}


def _of_one(config: Config, *needed: str) -> dict:
    """What a recording of one animal is read with.

    Raises:
        ValueError: If something that is needed is missing; the message names it.
    """
    missing = [f"--{name}" for name in needed if getattr(config, name) is None]
    if missing:
        raise ValueError(f"a recording of kind {config.kind} needs {', '.join(missing)}")
    usual = {
        "role": config.role or "seen",
        "kind": config.sound_kind,
        "split": _split(config),
    }
    return _settings(config, *needed) | usual


def _split(config: Config) -> str:
    """Split of sounds of which no file says it; where sources are dealt, it is replaced."""
    return "train" if config.split == "auto" else config.split


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
    print(report.printed(json.loads((Path(path).parent / "summary.json").read_text())))
    print(path)
