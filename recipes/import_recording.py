"""Make a cohort of real recordings.

`python -m recipes.import_recording --kind nwb --path FILES --out COHORT`

Kinds: `nwb`, an NWB file or a folder of them, an animal each; `frames`, a folder of frame files;
`broadband`, a folder of WAV files, each a trial of one stimulus, whose channels are electrodes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from icsim.checks import SPLITS
from icsim.frames import recording_pairs
from icsim.importers.frames import folder_frames, numeric_order, read_frames
from icsim.importers.nwb import COUNTS, PRESENTATIONS, read_nwb
from icsim.mua import count_spikes, multi_unit_activity
from icsim.recording import Recording
from icsim.sound import BIN_SAMPLES, RESPONSE_RATE, Sound, calibrate, find_audio, read, read_mono
from icsim.store import Cohort, create
from recipes.ranges import (
    Count,
    FullScaleDbSpl,
    LevelDbSpl,
    NotEmptyStr,
    Seconds,
    SecondsOrZero,
    checked,
)
from recipes.state import claim, run, write_json

WINDOWS_MS = (1.31, 10.0, 50.0)
"""Time scales at which trials are compared [ms] (chosen here)."""

Imported = tuple[str, list[Sound], Recording]
"""An animal's name, the sounds that it heard, and its recording."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to import, and as what."""

    kind: Literal["nwb", "frames", "broadband"]
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
    split: Literal["train", "validation", "test"] = "train"
    """Split of all sounds, unless NWB files say it."""
    sound_kind: NotEmptyStr = "unknown"
    """Class of all sounds: speech, music, ...; NWB files say it themselves."""

    full_scale_db_spl: FullScaleDbSpl | None = None
    """nwb: where stimuli are not in pascals, the level of a sound whose RMS is 1 [dB SPL]."""
    counts: NotEmptyStr = COUNTS
    """nwb: the TimeSeries of counts; without one, spike times of the units are counted."""
    presentations: NotEmptyStr = PRESENTATIONS
    """nwb: the table of presentations."""
    stimulus_column: NotEmptyStr = "stimulus_name"
    """nwb: its column of stimulus names."""

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

    Raises:
        ValueError: If the recordings cannot be used; nothing is listed then.
    """
    out = Path(config.out)
    sounds, recordings = together(READERS[config.kind](config))
    claim(out, config)
    cohort = _begun(out / "cohort.zarr", sounds, config)
    for name, recording in recordings.items():
        if name not in cohort.animals():
            cohort.add_animal(name, recording)
    write_json(out / "summary.json", {name: summary(cohort, name) for name in cohort.animals()})
    return cohort.path


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
            if not torch.equal(known.pressure, sound.pressure):
                raise ValueError(
                    f"{name}: its sound {sound.name!r} is not that of the animals before; "
                    "give different sounds different names"
                )
        places = {sound: place for place, sound in enumerate(sounds)}
        shown = [(places[heard[i].name], time_h) for i, time_h in recording.presentations]
        recordings[name] = dataclasses.replace(recording, presentations=shown)
    return list(sounds.values()), recordings


def summary(cohort: Cohort, name: str) -> dict:
    """What tells at a glance whether an import went well: rates, and how alike trials are."""
    animal = cohort.animal(name)
    bins = sum(p.bins for p in animal.presentations)
    spikes = sum(animal.counts(n).long().sum(0) for n in range(len(animal.presentations)))
    return {
        "channels": animal.channels,
        "presentations": len(animal.presentations),
        "seconds": round(bins / RESPONSE_RATE, 3),
        "spikes_a_second": _spread(spikes * RESPONSE_RATE / bins),
        "trial_correlation": {
            f"{window_ms:g} ms": _spread(_mean_correlation(cohort, name, window_ms))
            for window_ms in WINDOWS_MS
        },
    }


def trial_correlation(trials: Tensor, bins: int) -> Tensor:
    """Mean correlation of pairs of trials in windows of some bins, `(R, N, C)` to `(C,)`.

    A trial without any change correlates with nothing: 0.

    >>> trial_correlation(torch.arange(24.0).repeat(3, 1).unsqueeze(-1), 4)
    tensor([1.0000])
    """
    windows = trials.shape[1] // bins
    sums = trials[:, : windows * bins].float().unflatten(1, (windows, bins)).sum(2)
    centred = sums - sums.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    own = unit.square().sum((0, 1))
    return (unit.sum(0).square().sum(0) - own) / (len(trials) * (len(trials) - 1))


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
        split=config.split,
        full_scale_db_spl=config.full_scale_db_spl,
        counts=config.counts,
        presentations=config.presentations,
        stimulus_column=config.stimulus_column,
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
        split=config.split,
    )
    return [(config.name or Path(config.path).name, sounds, recording)]


def from_broadband(config: Config) -> list[Imported]:
    """A folder of trials as an animal that heard one sound several times."""
    _require(config, "status", "stimulus", "onset_s", "level_db_spl")
    stimulus, trials = Path(config.stimulus), sorted(find_audio(config.path), key=numeric_order)
    pressure = calibrate(read_mono(stimulus), config.level_db_spl)
    sound = Sound(stimulus.stem, config.sound_kind, stimulus.stem, config.split, pressure)
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


READERS = {"nwb": from_nwb, "frames": from_frames, "broadband": from_broadband}


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


def _mean_correlation(cohort: Cohort, name: str, window_ms: float) -> Tensor | None:
    """Of each channel, mean over sounds heard more than once `(C,)`; None if there are none."""
    animal = cohort.animal(name)
    bins = max(1, round(window_ms * RESPONSE_RATE / 1e3))
    found = [
        trial_correlation(torch.stack([animal.counts(n) for n in numbers]), bins)
        for _, numbers in recording_pairs(cohort, name, SPLITS)
    ]
    return torch.stack(found).mean(0) if found else None


def _spread(values: Tensor | None) -> dict[str, float] | None:
    """Lowest, median and highest channel."""
    if values is None:
        return None
    spread = np.quantile(values.double().numpy(), (0.0, 0.5, 1.0)).round(4).tolist()
    return dict(zip(("lowest", "median", "highest"), spread, strict=True))


if __name__ == "__main__":
    print(run(import_recording, Config))
