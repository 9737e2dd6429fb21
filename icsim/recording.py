"""What a cohort says of its sounds and animals, and how an animal's counts are read."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from icsim.chunks import Rows

ALIGNMENT = "default"
"""Name of the alignment that is meant where none is named."""

UNMATCHED = -1
"""Slot of a channel that answers to nothing, and is compared with nothing."""


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Where an animal's channels belong among those that a model has for all brains."""

    matching: Tensor
    """Slot of each recorded channel, or `UNMATCHED`; several may share one. `(C,)`"""
    slots: int
    """Channels of the model, at least one more than the largest slot."""


@dataclasses.dataclass(frozen=True)
class SoundEntry:
    """One sound of a cohort, without its samples; see `icsim.sound.Sound`."""

    index: int
    name: str
    kind: str
    source: str
    split: str
    """train, validation or test."""
    level_db_spl: float | None
    """RMS level [dB SPL]; None of silence, whose kind is `icsim.sound.SPONTANEOUS`."""
    samples: int
    """Length at the cohort's sample rate."""
    bins: int
    """Response bins that the sound fills."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """What `Cohort.add_animal` stores of one animal."""

    status: str
    """NH or HI: normal hearing or hearing impaired."""
    role: str
    """seen (networks train on it) or unseen."""
    thresholds_db_spl: Sequence[float] | None
    """ABR thresholds [dB SPL], `(F,)`, if they were measured."""
    abr_frequencies_hz: Sequence[float] | None
    """The frequencies of the thresholds [Hz], `(F,)`."""
    channels: int
    presentations: Sequence[tuple[int, float]]
    """For each presentation the index of its sound and its time since the recording began [h]."""
    counts: Iterable[Tensor | np.ndarray]
    """For each presentation, in order, its spike counts, uint8 `(N, C)`; may be a generator."""


@dataclasses.dataclass(frozen=True)
class Presentation:
    """One playing of one sound to one animal."""

    sound: int
    """Index of the sound."""
    time_h: float
    """When it began, since the recording began [h]."""
    start_bin: int
    """Where its counts begin in the animal's counts."""
    bins: int
    """How many bins it has: those of its sound."""


@dataclasses.dataclass(eq=False)
class AnimalRecording:
    """One animal of a cohort; made by `Cohort.animal`."""

    name: str
    status: str
    """NH or HI."""
    role: str
    """seen or unseen."""
    thresholds_db_spl: Tensor | None
    """ABR thresholds [dB SPL], `(F,)`."""
    abr_frequencies_hz: tuple[float, ...] | None
    channels: int
    presentations: list[Presentation]
    _rows: "Rows" = dataclasses.field(repr=False)
    _alignments: dict[str, Alignment] = dataclasses.field(repr=False)

    def counts(self, presentation_index: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Spike counts of one presentation.

        Args:
            presentation_index: Which of `presentations`.
            start: First bin of the presentation.
            stop: The bin after the last; the end when None.

        Returns:
            uint8 `(N, C)`, in the order recorded.

        Raises:
            ValueError: If there is no such presentation or bin, or a chunk is damaged.
        """
        block = self.block(presentation_index, start, stop)
        return torch.from_numpy(np.array(block, order="C"))

    def block(self, presentation_index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """`counts` as an array that may be the cache's own: read-only, and not copied if it can."""
        if not 0 <= presentation_index < len(self.presentations):
            raise ValueError(
                f"{self.name}: no presentation {presentation_index}; "
                f"it has {len(self.presentations)}, counted from 0"
            )
        shown = self.presentations[presentation_index]
        stop = shown.bins if stop is None else stop
        require_range(f"{self.name}, presentation {presentation_index}", start, stop, shown.bins)
        return self._rows.read(shown.start_bin + start, shown.start_bin + stop)

    def alignment(self, name: str = ALIGNMENT) -> Alignment | None:
        """Which channel of a model each channel belongs to, if that was found."""
        return self._alignments.get(name)

    def require_alignment(self, name: str = ALIGNMENT) -> Alignment:
        """The same; a ValueError if it was not found."""
        if name not in self._alignments:
            raise ValueError(f"{self.name} is not aligned as {name!r}: run recipes.align first")
        return self._alignments[name]

    def set_alignment(
        self, matching: Tensor | Sequence[int], slots: int, name: str = ALIGNMENT
    ) -> None:
        """Store an alignment, in place of an earlier one of that name, in a single write.

        Other processes that have opened the cohort see it when they open it again.

        Args:
            matching: As `Alignment.matching`.
            slots: As `Alignment.slots`.
            name: A cohort can hold several.

        Raises:
            ValueError: If there is not one slot for each channel of this animal.
        """
        aligned = checked_alignment(self.name, matching, slots, self.channels)
        from icsim.chunks import connect, write_attributes  # which need Zarr

        place = connect(self._rows.url, read_only=False)
        others = {
            k: {"matching": a.matching.tolist(), "slots": a.slots}
            for k, a in (self._alignments | {name: aligned}).items()
        }
        write_attributes(place, alignment_group(self.name), others)
        self._alignments[name] = aligned


def alignment_group(name: str) -> str:
    """Where an animal's alignments lie in the cohort."""
    return f"animals/{name}/alignment"


def placed(
    presentations: Sequence[tuple[int, float]], sounds: Sequence[SoundEntry]
) -> list[Presentation]:
    """The presentations with their place in the counts, which follow one another."""
    starts = itertools.accumulate((sounds[sound].bins for sound, _ in presentations), initial=0)
    return [
        Presentation(sound, time_h, start, sounds[sound].bins)
        for (sound, time_h), start in zip(presentations, starts, strict=False)
    ]


def checked_alignment(
    name: str, matching: Tensor | Sequence[int], slots: int, channels: int
) -> Alignment:
    """The alignment, if it has a slot or `UNMATCHED` for each channel of the animal."""
    matching = torch.as_tensor(matching).long()
    if matching.shape != (channels,) or bool(((matching < UNMATCHED) | (matching >= slots)).any()):
        raise ValueError(
            f"{name}: no alignment of its {channels} channels with {slots} slots; "
            f"give each channel a number from 0 to {slots - 1}, or {UNMATCHED} to set it apart"
        )
    return Alignment(matching, slots)


def require_range(what: str, start: int, stop: int, length: int) -> None:
    """Raise a ValueError unless `start` to `stop` lies within the length."""
    if not 0 <= start <= stop <= length:
        raise ValueError(f"{what}: no range {start} to {stop}; its length is {length}")
