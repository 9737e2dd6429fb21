"""What a cohort says of its sounds and animals, and how an animal's counts are read."""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from icsim.chunks import Rows, connect, write_attributes
from icsim.sound import BIN_SAMPLES


@dataclasses.dataclass(frozen=True)
class SoundEntry:
    """One sound of a cohort, without its samples; see `icsim.sound.Sound`."""

    index: int
    name: str
    kind: str
    source: str
    split: str
    """train, validation or test."""
    level_db_spl: float
    """RMS level [dB SPL]."""
    samples: int
    """Length at `SAMPLE_RATE`."""

    @property
    def bins(self) -> int:
        """Response bins that the sound fills."""
        return self.samples // BIN_SAMPLES


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
    _rows: Rows = dataclasses.field(repr=False)
    _permutation: np.ndarray | None = dataclasses.field(repr=False)

    def counts(
        self, presentation_index: int, start: int = 0, stop: int | None = None, aligned: bool = True
    ) -> Tensor:
        """Spike counts of one presentation.

        Args:
            presentation_index: Which of `presentations`.
            start: First bin of the presentation.
            stop: The bin after the last; the end when None.
            aligned: Order the channels by the stored permutation, if there is one.

        Returns:
            uint8 `(N, C)`.

        Raises:
            ValueError: If there is no such presentation or bin, or a chunk is damaged.
        """
        block = self.block(presentation_index, start, stop, aligned)
        return torch.from_numpy(np.array(block, order="C"))

    def block(
        self, presentation_index: int, start: int = 0, stop: int | None = None, aligned: bool = True
    ) -> np.ndarray:
        """`counts` as an array that may be the cache's own: read-only, and not copied if it can."""
        if not 0 <= presentation_index < len(self.presentations):
            raise ValueError(
                f"{self.name}: no presentation {presentation_index}; "
                f"it has {len(self.presentations)}, counted from 0"
            )
        shown = self.presentations[presentation_index]
        stop = shown.bins if stop is None else stop
        require_range(f"{self.name}, presentation {presentation_index}", start, stop, shown.bins)
        rows = self._rows.read(shown.start_bin + start, shown.start_bin + stop)
        return rows if self._permutation is None or not aligned else rows[:, self._permutation]

    @property
    def permutation(self) -> Tensor | None:
        """`(C,)`: aligned channel c is the recorded channel `permutation[c]`; None if not found."""
        return None if self._permutation is None else torch.from_numpy(self._permutation.copy())

    def set_permutation(self, permutation: Tensor | np.ndarray | Sequence[int]) -> None:
        """Store the channel permutation, in place of an earlier one, in a single write.

        Other processes that have opened the cohort see it when they open it again.

        Args:
            permutation: `(C,)`: aligned channel c is the recorded channel `permutation[c]`.

        Raises:
            ValueError: If it is not a permutation of this animal's channels.
        """
        order = checked_permutation(self.name, permutation, self.channels)
        place = connect(self._rows.url, read_only=False)
        write_attributes(place, alignment_group(self.name), {"permutation": order.tolist()})
        self._permutation = order


def alignment_group(name: str) -> str:
    """Where an animal's permutation lies in the cohort."""
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


def checked_permutation(
    name: str, order: Tensor | np.ndarray | Sequence[int], channels: int
) -> np.ndarray:
    """The permutation as int64 `(C,)`, if it is one."""
    order = np.array(order)
    if order.shape != (channels,) or not np.array_equal(np.sort(order), np.arange(channels)):
        raise ValueError(
            f"{name}: not a permutation of its {channels} channels; "
            f"give each of 0 to {channels - 1} once"
        )
    return order.astype(np.int64)


def require_range(what: str, start: int, stop: int, length: int) -> None:
    """Raise a ValueError unless `start` to `stop` lies within the length."""
    if not 0 <= start <= stop <= length:
        raise ValueError(f"{what}: no range {start} to {stop}; its length is {length}")
