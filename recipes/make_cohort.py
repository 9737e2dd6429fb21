"""Simulate a cohort: `python -m recipes.make_cohort --config recipes/configs/make_cohort/X.yaml`.

Run the same command again to go on.
"""

import dataclasses
import itertools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from icsim.files import whole_file
from icsim.folder import folder_sounds
from icsim.recording import Recording
from icsim.seeds import seeded
from icsim.simulation.abr import ABR_FREQUENCIES_HZ, abr_thresholds
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.cochlea import filter_sound
from icsim.simulation.sounds import embedded_sounds
from icsim.sound import SAMPLE_RATE, Sound
from icsim.store import Cohort, create
from recipes.ranges import (
    AnimalName,
    Count,
    Hours,
    NotEmptyStr,
    NotNegative,
    Seconds,
    SecondsOrZero,
    Seed,
    checked,
)
from recipes.state import claim, run


@dataclasses.dataclass(frozen=True)
class Member:
    """One animal to simulate."""

    name: AnimalName
    hearing: Literal["NH", "HI", "hidden"]
    """Normal, impaired, or synapses lost with normal thresholds."""
    severity: NotNegative = 1.0
    """Of HI: threshold shift in units of a mild high-frequency loss."""
    role: Literal["seen", "unseen"] = "seen"
    """Whether networks train on it."""

    __post_init__ = checked


@dataclasses.dataclass(frozen=True)
class Config:
    """A cohort of simulated gerbils."""

    out: NotEmptyStr
    """Folder: the cohort is `cohort.zarr` in it."""
    members: list[Member]
    """The animals."""
    channels: Count = 64
    """Channels of each animal."""
    train_s: SecondsOrZero = 240.0
    """Training sounds [s]."""
    validation_s: SecondsOrZero = 20.0
    """Validation sounds [s]."""
    test_s: SecondsOrZero = 60.0
    """Test sounds [s]; these and the validation sounds are heard twice."""
    sounds: NotEmptyStr | None = None
    """Folder of sound files in place of the embedded sounds."""
    hours: Hours = 11.0
    """Length of each recording [h]; presentations are spread over it."""
    longest_s: Seconds = 30.0
    """Longest sound [s]."""
    scatter: NotNegative = 0.1
    """Private deviation of each channel, in units of the spread over the map."""
    seed: Seed = 0
    """Of sounds, animals and responses."""

    __post_init__ = checked


def make_cohort(config: Config, sounds: list[Sound] | None = None) -> str:
    """Simulate what is not there yet; returns the path of the cohort.

    Args:
        config: What to simulate.
        sounds: From `ready`, if it was called before.
    """
    out = Path(config.out)
    path = out / "cohort.zarr"
    if sounds is None:
        sounds = ready(config)
    claim(out, config)
    description = {"simulated": True, "seed": config.seed}
    cohort = create(path, sounds, description) if sounds else Cohort.open(path)
    missing = [n for n, m in enumerate(config.members) if m.name not in cohort.animals()]
    if missing:
        _simulate(config, cohort, missing, out / "unfinished")
        shutil.rmtree(out / "unfinished")
    return str(path)


def ready(config: Config) -> list[Sound]:
    """The sounds that are still to be stored, none if they are; nothing is written.

    Raises:
        ValueError: If animals or sound files cannot be used.
    """
    names = [member.name for member in config.members]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"members must be named, each differently: {names}")
    draw_anatomy(config.channels, config.seed, config.scatter)
    sounds = [] if _finished(Path(config.out) / "cohort.zarr") else gather_sounds(config)
    heard_h = sum(len(s.pressure) * _times(s.split) for s in sounds) / SAMPLE_RATE / 3600
    if heard_h > config.hours:
        raise ValueError(f"sounds of {heard_h:.2f} h with repetitions do not fit {config.hours} h")
    return sounds


def _times(split: str) -> int:
    """How often each sound is heard: twice where it says how far a channel can be relied on."""
    return 1 if split == "train" else 2


def gather_sounds(config: Config) -> list[Sound]:
    """The sounds that the cohort will hear: embedded, or from a folder."""
    wanted = {"train": config.train_s, "validation": config.validation_s, "test": config.test_s}
    if config.sounds is None:
        return embedded_sounds(wanted, config.seed, config.longest_s, progress=True)
    return folder_sounds(config.sounds, wanted, config.seed, config.longest_s)


def _simulate(config: Config, cohort: Cohort, missing: list[int], scratch: Path) -> None:
    """Sound by sound for all animals, as they share its filtering; then animal by animal."""
    scratch.mkdir(exist_ok=True)
    animals = {n: simulated_animal(config, n) for n in missing}
    schedules = {n: schedule(config, cohort, n) for n in missing}
    for sound in tqdm(cohort.sounds, desc="simulating animals", unit="sound"):
        todo = [n for n in missing if not _part(scratch, n, sound.index).exists()]
        if not todo:
            continue
        with torch.no_grad():
            subbands = filter_sound(cohort.pressure(sound.index).unsqueeze(0))
            for n in todo:
                hours = [hour for index, hour in schedules[n] if index == sound.index]
                counts = [
                    animals[n].sample_counts(
                        subbands, hour, seeded(config.seed, n, sound.index, trial)
                    )
                    for trial, hour in enumerate(hours)
                ]
                _write_part(_part(scratch, n, sound.index), torch.cat(counts).numpy())
    for n in missing:
        member, animal = config.members[n], animals[n]
        recording = Recording(
            status="NH" if member.hearing == "NH" else "HI",
            role=member.role,
            thresholds_db_spl=abr_thresholds(animal, seeded(config.seed, n)).tolist(),
            abr_frequencies_hz=ABR_FREQUENCIES_HZ,
            channels=config.channels,
            presentations=schedules[n],
            counts=_parts(scratch, n, schedules[n]),
        )
        truth = animal.truth() | {"hearing": member.hearing, "severity": member.severity}
        cohort.add_animal(member.name, recording, truth)


def simulated_animal(config: Config, number: int) -> Animal:
    """Animal `number` of the cohort, as its member says; each has a seed of its own."""
    member, seed = config.members[number], 1000 * config.seed + number
    loss = draw_loss(member.hearing, member.severity, seed)
    return Animal(draw_anatomy(config.channels, seed, config.scatter), loss)


def schedule(config: Config, cohort: Cohort, number: int) -> list[tuple[int, float]]:
    """When one animal hears which sound: `(index, hours)`, in private order.

    Training sounds come once, the others twice, which says how far a channel can be relied on.

    Raises:
        ValueError: If the sounds are longer than the recording.
    """
    heard = [s for s in cohort.sounds for _ in range(_times(s.split))]
    order = torch.randperm(len(heard), generator=seeded(config.seed, number, 1)).tolist()
    lengths_h = [heard[which].samples / SAMPLE_RATE / 3600 for which in order]
    pause_h = (config.hours - sum(lengths_h)) / max(1, len(heard) - 1)
    if pause_h < 0:
        needed = math.ceil(sum(lengths_h))
        raise ValueError(f"{len(heard)} presentations do not fit {config.hours} h: use {needed} h")
    starts_h = itertools.accumulate((length + pause_h for length in lengths_h), initial=0.0)
    return [(heard[which].index, start) for which, start in zip(order, starts_h, strict=False)]


def _part(scratch: Path, number: int, sound: int) -> Path:
    return scratch / f"{number}-{sound}.npy"


def _write_part(path: Path, counts: np.ndarray) -> None:
    with whole_file(path) as beside, beside.open("wb") as file:
        np.save(file, counts)


def _parts(scratch: Path, number: int, presentations: list) -> Iterator[np.ndarray]:
    """Counts `(N, C)` of each presentation, trials of a sound in the order of time."""
    trials: dict[int, int] = {}
    for sound, _ in presentations:
        trial = trials.get(sound, 0)
        trials[sound] = trial + 1
        yield np.load(_part(scratch, number, sound), mmap_mode="r")[trial].T


def _finished(path: Path) -> bool:
    try:
        Cohort.open(path)
    except ValueError as error:
        # A damaged cohort is refused; only one whose sounds were never finished is begun again.
        if path.exists() and "half-written" not in str(error):
            raise
        return False
    return True


if __name__ == "__main__":
    print(run(make_cohort, Config))
