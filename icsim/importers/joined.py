"""Several animals as one cohort: their sounds joined, and dealt into splits by source."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from icsim.recording import Recording
from icsim.sound import Sound

from .splits import shared_sources

Imported = tuple[str, list[Sound], Recording]
"""An animal's name, the sounds that it heard, and its recording."""


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
        some = [f"{source} ({', '.join(splits)})" for source, splits in list(shared.items())[:5]]
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
    for name, presented, recording in animals:
        if name in recordings:
            raise ValueError(f"two animals are called {name!r}; give each file its own subject_id")
        for sound in presented:
            first = sounds.setdefault(sound.name, sound)
            said = [(s.kind, s.source, s.split) for s in (first, sound)]
            if said[0] != said[1]:
                raise ValueError(
                    f"{name}: its sound {sound.name!r} has kind, source and split {said[1]}, and "
                    f"{said[0]} in the animals before; say the same in all files"
                )
            if not torch.equal(first.pressure, sound.pressure):
                raise ValueError(
                    f"{name}: its sound {sound.name!r} is not that of the animals before; "
                    "give different sounds different names"
                )
        places = {sound: place for place, sound in enumerate(sounds)}
        shown = [(places[presented[i].name], time_h) for i, time_h in recording.presentations]
        recordings[name] = dataclasses.replace(recording, presentations=shown)
    return list(sounds.values()), recordings
