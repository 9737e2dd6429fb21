"""Training frames: a piece of a sound, and what every animal that heard it answered."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from icsim.recording import AnimalRecording
from icsim.store import Cohort


class Frames(Dataset):
    """Frames of a cohort's sounds with the counts of several animals.

    A frame lies within one sound; what remains at a sound's end is left out. Every animal that
    heard the sound gives one of its presentations: the first, or, once `epoch` is set, another one
    in each epoch, until all have had their turn. Animals may differ in channels: counts of those
    that an animal has not are zeros. Whole batches are read faster than frames:

        DataLoader(range(len(frames)), batch_size=16, shuffle=True, collate_fn=frames.read)

    With `persistent_workers=True` the workers keep the epoch that they started with.

    Args:
        cohort: Where sounds and animals are.
        animals: Names; their order is the axis A.
        split: One or several of train, validation and test.
        context_bins: Bins of the sound before the frame, zeros before the sound began.
        bins: Bins of the frame. Source of both defaults: arXiv 2506.03088.
        max_hours: Leave out presentations that began later than this [h].

    Raises:
        ValueError: If an animal is missing, a length is negative, or no frame is left.
    """

    epoch: int | None = None
    """Which presentation to take of several, set by whoever trains; the first when None."""

    def __init__(
        self,
        cohort: Cohort,
        animals: Sequence[str],
        split: str | Sequence[str],
        context_bins: int = 64,
        bins: int = 256,
        max_hours: float | None = None,
    ):
        if context_bins < 0 or bins <= 0:
            raise ValueError(
                f"context_bins {context_bins} must not be negative, and bins {bins} be positive"
            )
        self.cohort, self.clock = cohort, cohort.clock
        self.context_bins, self.bins = context_bins, bins
        self.context = context_bins * self.clock.bin_samples
        self.samples = bins * self.clock.bin_samples
        self.animals = [cohort.animal(name) for name in animals]
        if not self.animals:
            raise ValueError("no animal; name at least one")
        self.channels = max(animal.channels for animal in self.animals)
        self._presented = [_presented(animal, max_hours) for animal in self.animals]
        self._frames = self._plan(_sounds(cohort, split))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One frame: as `read` returns, without the axis B."""
        return {key: value[0] for key, value in self.read([index]).items()}

    @property
    def repeats(self) -> int:
        """How often an animal heard a sound of these frames, at most."""
        sounds = {sound for sound, _ in self._frames}
        return max(
            len(p) for presented in self._presented for s, p in presented.items() if s in sounds
        )

    def sound_of(self, index: int) -> int:
        """Which sound a frame is a part of."""
        return self._frames[index][0]

    def read(
        self, indices: Iterable[int], animals: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Several frames at once.

        Args:
            indices: Which frames, B of them.
            animals: Places of the animals on the axis A, if not all in their order.

        Returns:
            `sound` `(B, context + samples)` [Pa]; `hours` `(B, A)` since the recording began, at
            the frame's first bin [h]; `counts` uint8 `(B, A, C, N)`; `heard` `(B, A)`, False where
            an animal did not hear the sound (its hours and counts are zeros); `sound_index` `(B,)`.
        """
        indices = [range(len(self))[int(index)] for index in indices]
        animals = range(len(self.animals)) if animals is None else animals
        shape = (len(indices), len(animals))
        sound = torch.empty(len(indices), self.context + self.samples)
        hours, present = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        counts = torch.zeros(*shape, self.channels, self.bins, dtype=torch.uint8)
        for row, index in enumerate(indices):
            number, start = self._frames[index]
            sound[row] = self.cohort.pressure(number, start - self.context, start + self.samples)
            for column, animal in enumerate(animals):
                read = self._answer(index, animal)
                if read is not None:
                    hours[row, column], block = read
                    present[row, column] = True
                    counts.numpy()[row, column, : block.shape[1]] = block.T
        sound_index = torch.tensor([self._frames[index][0] for index in indices])
        return {
            "sound": sound,
            "hours": hours,
            "counts": counts,
            "heard": present,
            "sound_index": sound_index,
        }

    def _answer(self, index: int, which: int) -> tuple[float, np.ndarray] | None:
        """When one animal heard a frame [h] and its counts `(N, C)`, if it did."""
        (number, start), presented = self._frames[index], self._presented[which]
        if number not in presented:
            return None
        first = start // self.clock.bin_samples
        turn = 0 if self.epoch is None else index + self.epoch
        chosen = presented[number][turn % len(presented[number])]
        animal = self.animals[which]
        time_h = animal.presentations[chosen].time_h + self.clock.hours(start)
        return time_h, animal.block(chosen, first, first + self.bins)

    def _plan(self, sounds: list[int]) -> list[tuple[int, int]]:
        """Sound and first sample of every frame."""
        usable = [s for s in sounds if any(s in presented for presented in self._presented)]
        frames = [
            (number, start)
            for number in usable
            for start in range(
                0, self.cohort.sounds[number].samples - self.samples + 1, self.samples
            )
        ]
        if not frames:
            raise ValueError(
                f"no frame of {self.bins} bins: {len(usable)} of the split's {len(sounds)} "
                "sounds were heard by these animals in time; choose shorter frames, other animals "
                "or a larger max_hours"
            )
        return frames


def recording_pairs(
    cohort: Cohort, animal: str, split: str | Sequence[str]
) -> list[tuple[int, list[int]]]:
    """The sounds that an animal heard at least twice: what a noise ceiling is measured on.

    Args:
        cohort: Where sounds and animals are.
        animal: Its name.
        split: One or several of train, validation and test.

    Returns:
        For each such sound its index and those of its presentations, earliest first.
    """
    presented = _presented(cohort.animal(animal), None)
    sounds = _sounds(cohort, split)
    return [(s, presented[s]) for s in sounds if len(presented.get(s, ())) > 1]


def _presented(animal: AnimalRecording, max_hours: float | None) -> dict[int, list[int]]:
    """For each sound heard in time, its presentations, earliest first."""
    trials: dict[int, list[int]] = {}
    in_time = sorted(enumerate(animal.presentations), key=lambda numbered: numbered[1].time_h)
    for which, shown in in_time:
        if max_hours is None or shown.time_h <= max_hours:
            trials.setdefault(shown.sound, []).append(which)
    return trials


def _sounds(cohort: Cohort, split: str | Sequence[str]) -> list[int]:
    """Indices of the sounds of some splits."""
    splits = [split] if isinstance(split, str) else list(split)
    sounds = [sound.index for sound in cohort.sounds if sound.split in splits]
    if not sounds:
        there = ", ".join(sorted({sound.split for sound in cohort.sounds}))
        raise ValueError(f"no sound of split {', '.join(splits)}; the cohort has {there}")
    return sounds
