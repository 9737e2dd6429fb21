"""Which sounds train a model and which judge it: no talker or piece in two splits."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from icsim.catalogue import AudioFile, deal
from icsim.sound import SAMPLE_RATE, SPONTANEOUS, Sound
from icsim.validation import SPLITS

SHARE = 0.15
"""Share of the seconds that validation and test get each, as near as whole sources allow (chosen
here)."""


def shared_sources(sounds: Sequence[Sound]) -> dict[str, list[str]]:
    """The sources that are in more than one split, with these; silence has no source.

    A model that is tested on the voice that it was trained with is tested on what it knows.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    for sound in sounds:
        if sound.kind != SPONTANEOUS:
            splits[sound.source].add(sound.split)
    ordered = {
        source: [s for s in SPLITS if s in splits_of] for source, splits_of in splits.items()
    }
    return {
        source: splits_of for source, splits_of in sorted(ordered.items()) if len(splits_of) > 1
    }


def split_by_source(sounds: Sequence[Sound], heard_twice: Collection[str] = ()) -> dict[str, str]:
    """Deal the sources into train, validation and test; the same sounds give the same splits.

    Each kind of sound is spread over the splits as far as it has sources for it. A test needs
    sounds that were heard twice, since what is not repeatable cannot be predicted: where there are
    any, the test takes its sources from these.

    Args:
        sounds: All of the cohort; the splits that they have do not matter.
        heard_twice: Names of the sounds that every animal heard at least twice, if it heard them.

    Returns:
        The split of each source; silence is for training.

    Raises:
        ValueError: If there are fewer than three sources.
    """
    played = [sound for sound in sounds if sound.kind != SPONTANEOUS]
    sources = sorted({sound.source for sound in played})
    if len(sources) < len(SPLITS):
        raise ValueError(
            f"{len(sources)} source(s) of sound: {', '.join(sources) or 'none'}; at least "
            f"{len(SPLITS)} are needed to deal them into {', '.join(SPLITS)}, which share none: "
            "name the source (talker, piece) of each sound, or give all sounds one split"
        )
    files = [_file(sound) for sound in played]
    total_s = sum(file.duration_s for file in files)
    repeated = {sound.source for sound in played if sound.name in heard_twice} or set(sources)
    test = _some([file for file in files if file.source in repeated], SHARE * total_s)
    if len(sources) - len(test) < len(SPLITS) - 1:  # two sources are left for the others
        test = {min(test)}
    rest = [file for file in files if file.source not in test]
    validation = _some(rest, SHARE * total_s)
    return {
        source: "test" if source in test else "validation" if source in validation else "train"
        for source in sources
    }


def with_splits(sounds: Sequence[Sound], splits: Mapping[str, str]) -> list[Sound]:
    """The sounds with the splits of their sources, as `split_by_source` gives them."""
    return [
        Sound(s.name, s.kind, s.source, splits.get(s.source, "train"), s.pressure) for s in sounds
    ]


def _some(files: list[AudioFile], wanted_s: float) -> set[str]:
    """Sources of so many seconds, of all kinds, at least one; and one is left if there are two."""
    if len({file.source for file in files}) == 1:
        return {files[0].source}
    have_s = sum(file.duration_s for file in files)
    wanted_s = min(wanted_s, have_s / 2)
    dealt = deal(files, {"taken": wanted_s, "left": have_s - wanted_s}, np.random.default_rng(0))
    return {file.source for file in dealt["taken"]}


def _file(sound: Sound) -> AudioFile:
    """A sound as `icsim.catalogue.deal` takes it, which knows files."""
    seconds = len(sound.pressure) / SAMPLE_RATE
    return AudioFile(Path(sound.name), sound.kind, sound.source, seconds)
