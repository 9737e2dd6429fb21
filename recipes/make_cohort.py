"""Simulate a cohort: `python -m recipes.make_cohort --config recipes/configs/make_cohort/X.yaml`.

Run the same command again to go on.
"""

import dataclasses
from pathlib import Path
from typing import Literal

from icsim.folder import folder_sounds
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.cohort import repetitions, simulate_recordings
from icsim.simulation.sounds import embedded_sounds
from icsim.sound import SAMPLE_RATE, Sound
from icsim.store import Cohort, create
from recipes.running.commands import claim, run
from recipes.running.ranges import (
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


@dataclasses.dataclass(frozen=True)
@checked
class Member:
    """One animal to simulate."""

    name: AnimalName
    hearing: Literal["NH", "HI", "hidden"]
    """Normal, impaired, or synapses lost with normal thresholds."""
    severity: NotNegative = 1.0
    """Of HI: threshold shift in units of a mild high-frequency loss."""
    role: Literal["seen", "unseen"] = "seen"
    """Whether networks train on it."""
    twin_of: AnimalName | None = None
    """The member, of the same hearing and severity, whose loss it has exactly, in another brain."""


@dataclasses.dataclass(frozen=True)
@checked
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
        animals = {}
        for n in missing:
            member = config.members[n]
            truth = {"hearing": member.hearing, "severity": member.severity}
            truth |= {"twin_of": member.twin_of} if member.twin_of else {}
            animals[n] = member.name, member.role, simulated_animal(config, n), truth
        simulate_recordings(cohort, animals, config.hours, config.seed)
    return str(path)


def ready(config: Config) -> list[Sound]:
    """The sounds that are still to be stored, none if they are; nothing is written.

    Raises:
        ValueError: If animals or sound files cannot be used.
    """
    names = [member.name for member in config.members]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"members must be named, each differently: {names}")
    for twin in config.members:
        if twin.twin_of is not None:
            _require_twins(twin, config.members)
    draw_anatomy(config.channels, config.seed, config.scatter)
    sounds = [] if _finished(Path(config.out) / "cohort.zarr") else gather_sounds(config)
    heard_h = sum(len(s.pressure) * repetitions(s.split) for s in sounds) / SAMPLE_RATE / 3600
    if heard_h > config.hours:
        raise ValueError(f"sounds of {heard_h:.2f} h with repetitions do not fit {config.hours} h")
    return sounds


def gather_sounds(config: Config) -> list[Sound]:
    """The sounds that the cohort will hear: embedded, or from a folder."""
    wanted = {"train": config.train_s, "validation": config.validation_s, "test": config.test_s}
    if config.sounds is None:
        return embedded_sounds(wanted, config.seed, config.longest_s, progress=True)
    return folder_sounds(config.sounds, wanted, config.seed, config.longest_s)


def simulated_animal(config: Config, number: int) -> Animal:
    """Animal `number` of the cohort, as its member says; each has a seed of its own."""
    member, first = config.members[number], 1000 * config.seed
    names = [one.name for one in config.members]
    of = number if member.twin_of is None else names.index(member.twin_of)
    loss = draw_loss(member.hearing, member.severity, first + of)
    return Animal(draw_anatomy(config.channels, first + number, config.scatter), loss)


def _require_twins(twin: Member, members: list[Member]) -> None:
    """Ask that the other one is there, alike, and no twin itself."""
    alike = [
        one.name
        for one in members
        if one.twin_of is None and (one.hearing, one.severity) == (twin.hearing, twin.severity)
    ]
    if twin.twin_of not in alike:
        raise ValueError(
            f"{twin.name}: twin_of {twin.twin_of} must be one of hearing {twin.hearing}, severity "
            f"{twin.severity:g} that is no twin itself: {', '.join(alike) or 'there is none'}"
        )


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
