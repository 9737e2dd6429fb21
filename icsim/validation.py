"""What may be added to a cohort: sounds and recordings, checked before anything of them is kept."""

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from icsim.clock import Clock
from icsim.recording import Recording, SoundEntry
from icsim.sound import SPONTANEOUS, Sound, level, validate

SPLITS = ("train", "validation", "test")
STATUSES = ("NH", "HI")
ROLES = ("seen", "unseen")

MISSING_COUNT = 255
"""What is read for a missing chunk of counts; so data end at 254 (chosen here)."""


def sound_attributes(sounds: Sequence[Sound], clock: Clock) -> list[dict[str, Any]]:
    """What the cohort says of its sounds: `SoundEntry` without index and bins, checked."""
    if not sounds:
        raise ValueError("a cohort needs at least one sound")
    entries = {}
    for sound in sounds:
        if sound.name in entries:
            raise ValueError(f"two sounds are called {sound.name!r}; give each its own name")
        if sound.pressure.ndim != 1:
            raise ValueError(f"{sound.name}: pressure must be (T,), not {sound.pressure.shape}")
        require_one_of(f"{sound.name}: split", sound.split, SPLITS)
        if sound.kind == SPONTANEOUS:
            _check_silence(sound, clock)
        else:
            validate(sound.pressure, sound.name)
        entries[sound.name] = {
            "name": sound.name,
            "kind": sound.kind,
            "source": sound.source,
            "split": sound.split,
            # JSON knows no infinity: of silence there is no level
            "level_db_spl": None if sound.kind == SPONTANEOUS else level(sound.pressure).item(),
            "samples": len(sound.pressure),
        }
    return list(entries.values())


def _check_silence(sound: Sound, clock: Clock) -> None:
    if len(sound.pressure) < clock.bin_samples or bool(sound.pressure.any()):
        raise ValueError(
            f"{sound.name}: its kind is {SPONTANEOUS!r}, so it must be silence, of a bin or more; "
            "give a sound that was played another kind"
        )


def animal_attributes(
    name: str, recording: Recording, sounds: Sequence[SoundEntry], clock: Clock
) -> dict[str, Any]:
    """What the cohort says of an animal, checked."""
    require_one_of(f"{name}: status", recording.status, STATUSES)
    require_one_of(f"{name}: role", recording.role, ROLES)
    if recording.channels < 1:
        raise ValueError(f"{name}: {recording.channels} channels; at least one is needed")
    _check_presentations(name, recording.presentations, sounds, clock)
    thresholds, frequencies = _checked_thresholds(name, recording)
    return {
        "status": recording.status,
        "role": recording.role,
        "thresholds_db_spl": thresholds,
        "abr_frequencies_hz": frequencies,
        "channels": int(recording.channels),
        "presentations": [[int(sound), float(h)] for sound, h in recording.presentations],
    }


def _checked_thresholds(
    name: str, recording: Recording
) -> tuple[list[float], list[float]] | tuple[None, None]:
    """Thresholds and their frequencies; neither if nothing was measured."""
    if recording.thresholds_db_spl is None:
        return None, None
    thresholds = [float(threshold) for threshold in recording.thresholds_db_spl]
    frequencies = recording.abr_frequencies_hz
    if frequencies is None or len(frequencies) != len(thresholds):
        raise ValueError(
            f"{name}: {len(thresholds)} thresholds for the frequencies {frequencies} Hz; "
            "give one frequency a threshold"
        )
    if not all(math.isfinite(threshold) for threshold in thresholds):
        raise ValueError(
            f"{name}: thresholds {thresholds} dB SPL must be finite; where no response was "
            "found give the highest level tested, or None if nothing was measured"
        )
    return thresholds, [float(hz) for hz in frequencies]


def _check_presentations(
    name: str,
    presentations: Sequence[tuple[int, float]],
    sounds: Sequence[SoundEntry],
    clock: Clock,
) -> None:
    if not presentations:
        raise ValueError(f"{name}: no presentation; an animal must have heard a sound")
    for number, (sound, time_h) in enumerate(presentations):
        if not 0 <= sound < len(sounds):
            raise ValueError(
                f"{name}, presentation {number}: no sound {sound}; "
                f"the cohort has {len(sounds)}, counted from 0"
            )
        if not (math.isfinite(time_h) and time_h >= 0):
            raise ValueError(
                f"{name}, presentation {number}: time_h is {time_h}; "
                "give the hours since the recording began"
            )
    tolerance_h = clock.hours(clock.bin_samples)  # times are rounded by whoever wrote them down
    in_time = sorted(range(len(presentations)), key=lambda number: presentations[number][1])
    for one, two in itertools.pairwise(in_time):
        (sound, time_h), next_h = presentations[one], presentations[two][1]
        end_h = time_h + clock.hours(sounds[sound].samples)
        if next_h < end_h - tolerance_h:
            raise ValueError(
                f"{name}: presentation {two} begins at {next_h:.6f} h, before presentation {one} "
                f"ends at {end_h:.6f} h; two sounds cannot be heard at once: "
                "correct the times (in hours)"
            )


def checked_counts(
    name: str, recording: Recording, sounds: Sequence[SoundEntry], clock: Clock
) -> Iterator[np.ndarray]:
    """The counts of each presentation as uint8 `(N, C)`, each checked as it comes."""
    blocks, expected = iter(recording.counts), len(recording.presentations)
    for number, (sound, _) in enumerate(recording.presentations):
        block = next(blocks, None)
        if block is None:
            raise ValueError(f"{name}: counts for {number} of {expected} presentations")
        what = f"{name}, presentation {number} ({sounds[sound].name})"
        _check_block(what, as_array(block), sounds[sound].bins, recording.channels, clock)
        yield as_array(block).astype(np.uint8)  # a copy: a generator may fill the same array again
    if next(blocks, None) is not None:
        raise ValueError(f"{name}: counts for more than its {expected} presentations")


def _check_block(what: str, block: np.ndarray, bins: int, channels: int, clock: Clock) -> None:
    if block.ndim != 2 or block.dtype.kind not in "iu":
        raise ValueError(
            f"{what}: counts must be whole numbers (N, C), not {block.dtype} {block.shape}; "
            "convert them to uint8"
        )
    if block.shape[1] != channels:
        raise ValueError(f"{what}: {block.shape[1]} channels of counts; {channels} were announced")
    if block.shape[0] != bins:
        raise ValueError(
            f"{what}: {block.shape[0]} bins of counts, but the sound fills {bins} at the response "
            f"rate of {clock.bin_rate_hz:.6f} Hz; count the spikes again at that rate"
        )
    if block.size and (block.min() < 0 or block.max() >= MISSING_COUNT):
        raise ValueError(
            f"{what}: counts from {block.min()} to {block.max()} spikes a bin; "
            f"0 to {MISSING_COUNT - 1} can be stored, so clip or repair them"
        )


def split_truth(truth: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Separate what JSON holds (nested) from arrays (flat, named by their keys joined by dots)."""
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for key, value in truth.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise ValueError(f"truth key {key!r}: use letters, digits, '_' and '-'")
        if isinstance(value, dict):
            values[key], deeper = split_truth(value)
            arrays |= {f"{key}.{name}": array for name, array in deeper.items()}
        elif isinstance(value, Tensor | np.ndarray):
            arrays[key] = as_array(value)
        else:
            values[key] = value.item() if isinstance(value, np.generic) else value
            require_json(f"truth of {key!r}", values[key])
    return values, arrays


def as_array(values: Tensor | np.ndarray) -> np.ndarray:
    """The values as an array, from wherever a tensor lies."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def require_one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    """Raise a ValueError that names the value and those allowed."""
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}; use one of {', '.join(allowed)}")


def require_json(what: str, value: Any) -> None:
    """Raise a ValueError unless JSON can hold the value."""
    try:
        json.dumps(value)
    except TypeError as error:
        raise ValueError(f"{what} cannot be stored as JSON ({error}); convert it") from error
