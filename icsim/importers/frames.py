"""Frame files: a stretch of sound and the counts of the same stretch, one frame after another.

The release of a midbrain recording with eLife (2023) is described as frames of sound in float32 and
of multi-unit activity in uint8, bins × 256 channels a hemisphere. No public file was at hand, so
this is what is assumed; where a file differs, make `Frame` of it yourself:

- Sound is in pascals at `SAMPLE_RATE`, `(T,)`, and counts are `(N, C)` with T = 32 N: no context
  is repeated and nothing is left out between frames.
- Frames are in the order in which they were played, without pauses. As many of them as are asked
  for make one sound; a sound that was played before, sample by sample, is a repetition of it.
- A file NAME.npz holds `sound` and `mua`, or `sound`, `mua_left` and `mua_right`; or there are
  files NAME_sound.npy, NAME_mua.npy, and so on. Names are in order of time.
"""

import dataclasses
import itertools
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from icsim.recording import Recording
from icsim.sound import BIN_SAMPLES, SAMPLE_RATE, Sound

HEMISPHERES = ("mua", "mua_left", "mua_right")
"""Names of counts, in the order of their channels (chosen here)."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A stretch of sound and what was answered."""

    name: str
    sound: np.ndarray
    """Pressure [Pa] at `SAMPLE_RATE`, `(T,)`."""
    counts: np.ndarray
    """Spikes a bin, uint8 `(N, C)`: the channels of all hemispheres."""


def read_frames(
    frames: Iterable[Frame],
    frames_a_sound: int,
    *,
    status: str,
    role: str = "seen",
    kind: str = "unknown",
    split: str = "train",
) -> tuple[list[Sound], Recording]:
    """Chain frames into sounds and one animal's recording.

    Everything is held in memory: with 512 channels about 1.8 GB an hour.

    Args:
        frames: In the order in which they were played, as from `folder_frames`.
        frames_a_sound: How many of them make one sound; the last sound may have fewer.
        status: NH or HI.
        role: seen or unseen.
        kind: Class of the sounds.
        split: Split of the sounds; change it in those to be used for something else.

    Returns:
        What `icsim.store.create` and `Cohort.add_animal` take.

    Raises:
        ValueError: If there are no frames, or one is not as described; the message names it.
    """
    if frames_a_sound < 1:
        raise ValueError(f"{frames_a_sound} frames a sound; at least one is needed")
    sounds: dict[bytes, Sound] = {}
    presentations, blocks, samples, channels = [], [], 0, None
    frames = iter(frames)
    while group := list(itertools.islice(frames, frames_a_sound)):
        for frame in group:
            channels = frame.counts.shape[-1] if channels is None else channels
            _check(frame, channels)
        pressure = np.concatenate([frame.sound for frame in group])
        name = f"sound-{len(sounds):04d}"
        sound = Sound(name, kind, name, split, torch.from_numpy(pressure))
        number = list(sounds).index(key) if (key := pressure.tobytes()) in sounds else len(sounds)
        sounds.setdefault(key, sound)
        presentations.append((number, samples / SAMPLE_RATE / 3600))
        blocks.append(np.concatenate([frame.counts for frame in group]))
        samples += len(pressure)
    if channels is None:
        raise ValueError("no frames; check the folder, or what was given")
    recording = Recording(status, role, None, None, channels, presentations, blocks)
    return list(sounds.values()), recording


def folder_frames(folder: str | Path) -> Iterator[Frame]:
    """The frames of a folder in the order of their names, read one by one.

    Raises:
        ValueError: If there are none, or a file is damaged or holds something else.
    """
    folder = Path(folder)
    archives, sounds = list(folder.glob("*.npz")), list(folder.glob("*_sound.npy"))
    if bool(archives) == bool(sounds):
        raise ValueError(
            f"{folder}: {len(archives)} files NAME.npz and {len(sounds)} NAME_sound.npy; "
            "a folder of frames has either"
        )
    for path in sorted(archives or sounds, key=numeric_order):
        arrays = _arrays(path)
        counts = [arrays[name] for name in HEMISPHERES if name in arrays]
        if "sound" not in arrays or not counts:
            raise ValueError(
                f"{path}: has {', '.join(sorted(arrays)) or 'nothing'}; a frame needs 'sound', and "
                f"one or more of {', '.join(HEMISPHERES)}"
            )
        if any(array.ndim != 2 or len(array) != len(counts[0]) for array in counts):
            raise ValueError(
                f"{path}: counts of {' and '.join(str(array.shape) for array in counts)}; "
                "they must be (N, C), of as many bins in both hemispheres"
            )
        yield Frame(str(path), arrays["sound"], np.concatenate(counts, -1))


def numeric_order(path: Path) -> list[str]:
    """What sorts file names as people number them.

    >>> sorted([Path("a_10"), Path("a_9")], key=numeric_order)[0].name
    'a_9'
    """
    return [part.zfill(20) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """What a frame's file or files hold."""
    try:
        if path.suffix == ".npz":
            with np.load(path) as archive:
                return dict(archive)
        base = str(path).removesuffix("sound.npy")
        files = {name: Path(f"{base}{name}.npy") for name in ("sound", *HEMISPHERES)}
        return {name: np.load(file) for name, file in files.items() if file.exists()}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: cannot be read ({error}); restore or remove it") from error


def _check(frame: Frame, channels: int) -> None:
    """Raise a ValueError that names the frame, unless it is as described."""
    sound, counts = frame.sound, frame.counts
    if sound.ndim != 1 or sound.dtype != np.float32:
        raise ValueError(
            f"{frame.name}: sound must be float32 (T,), not {sound.dtype} {sound.shape}; convert it"
        )
    if counts.ndim != 2 or counts.dtype != np.uint8:
        raise ValueError(
            f"{frame.name}: counts must be uint8 (N, C), not {counts.dtype} {counts.shape}; "
            "convert them"
        )
    if len(sound) != BIN_SAMPLES * len(counts):
        raise ValueError(
            f"{frame.name}: {len(sound)} samples for {len(counts)} bins of {BIN_SAMPLES}; "
            "cut the context off the sound, or bins off the counts"
        )
    if counts.shape[1] != channels:
        raise ValueError(
            f"{frame.name}: {counts.shape[1]} channels, {channels} in the first frame; "
            "frames of another animal belong into another recording"
        )
