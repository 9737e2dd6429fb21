"""Recordings of simulated animals: who hears which sound when, and what each answers."""

import itertools
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from icsim.files import whole_file
from icsim.recording import Recording
from icsim.seeds import seeded
from icsim.sound import SAMPLE_RATE
from icsim.store import Cohort

from .abr import ABR_FREQUENCIES_HZ, abr_thresholds
from .animal import Animal
from .cochlea import filter_sound


def repetitions(split: str) -> int:
    """How often each sound is heard: twice where it says how far a channel can be relied on."""
    return 1 if split == "train" else 2


def simulate_recordings(
    cohort: Cohort, animals: Mapping[int, tuple[str, str, Animal, dict]], hours: float, seed: int
) -> None:
    """Add simulated animals to a cohort whose sounds are stored.

    Sound by sound for all animals, as they share its filtering; then animal by animal. Parts are
    kept in a folder `unfinished` beside the cohort until all is there, so that a run that was
    stopped goes on.

    Args:
        cohort: With its sounds.
        animals: By number, of which its responses follow: name, role, animal, and what else is
            kept of its truth, such as `hearing`.
        hours: Length of each recording [h].
        seed: Of responses and of the order of presentations.
    """
    scratch = Path(cohort.path).parent / "unfinished"
    scratch.mkdir(exist_ok=True)
    schedules = {n: schedule(cohort, hours, seed, n) for n in animals}
    for sound in tqdm(cohort.sounds, desc="simulating animals", unit="sound"):
        todo = [n for n in animals if not _part(scratch, n, sound.index).exists()]
        if not todo:
            continue
        with torch.no_grad():
            subbands = filter_sound(cohort.pressure(sound.index).unsqueeze(0))
            for n in todo:
                heard_at = [hour for index, hour in schedules[n] if index == sound.index]
                counts = [
                    animals[n][2].sample_counts(subbands, hour, seeded(seed, n, sound.index, trial))
                    for trial, hour in enumerate(heard_at)
                ]
                _write_part(_part(scratch, n, sound.index), torch.cat(counts).numpy())
    for n, (name, role, animal, more) in animals.items():
        recording = Recording(
            status="NH" if more["hearing"] == "NH" else "HI",
            role=role,
            thresholds_db_spl=abr_thresholds(animal, seeded(seed, n)).tolist(),
            abr_frequencies_hz=ABR_FREQUENCIES_HZ,
            channels=len(animal.cf_hz),
            presentations=schedules[n],
            counts=_parts(scratch, n, schedules[n]),
        )
        cohort.add_animal(name, recording, animal.truth() | more)
    shutil.rmtree(scratch)


def schedule(cohort: Cohort, hours: float, seed: int, number: int) -> list[tuple[int, float]]:
    """When one animal hears which sound: `(index, hours)`, in private order.

    Training sounds come once, the others twice, which says how far a channel can be relied on.

    Raises:
        ValueError: If the sounds are longer than the recording.
    """
    sounds = [s for s in cohort.sounds for _ in range(repetitions(s.split))]
    order = torch.randperm(len(sounds), generator=seeded(seed, number, 1)).tolist()
    lengths_h = [sounds[which].samples / SAMPLE_RATE / 3600 for which in order]
    pause_h = (hours - sum(lengths_h)) / max(1, len(sounds) - 1)
    if pause_h < 0:
        needed = math.ceil(sum(lengths_h))
        raise ValueError(f"{len(sounds)} presentations do not fit {hours} h: use {needed} h")
    starts_h = itertools.accumulate((length + pause_h for length in lengths_h), initial=0.0)
    return [(sounds[which].index, start) for which, start in zip(order, starts_h, strict=False)]


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
