"""Cohorts on disk: the sounds once, and what each animal's midbrain answered to them.

A cohort is a Zarr 3 store, on a local disk or any place that fsspec reaches:

    zarr.json                    what the sounds are, and which chunks must be there
    pressure                     all sounds, one after the other [Pa], chunks of about 1 s
    animals/<name>/zarr.json     status, thresholds, presentations, and which chunks must be there
    animals/<name>/counts        all presentations, one after the other, `(N, C)` spikes a bin
    animals/<name>/alignment     the channel permutation, once it has been found
    animals/<name>/truth         simulated animals alone; read by `Cohort.truth` and nothing else

What must be there is written last, so that an interrupted write is known for what it is. To remove
an animal, delete its folder.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import re
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch import Tensor
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.sync import collect_aiterator, sync
from zarr.storage import FsspecStore, LocalStore

from icsim.sound import BIN_SAMPLES, RESPONSE_RATE, SAMPLE_RATE, Sound, level, validate

FORMAT = {"format": "icsim cohort", "version": 1}
"""How a cohort is told from any other Zarr store."""

SPLITS = ("train", "validation", "test")
STATUSES = ("NH", "HI")
ROLES = ("seen", "unseen")

PRESSURE_CHUNK = 768 * BIN_SAMPLES
"""Samples in a chunk of sound: about 1 s (chosen here)."""

COUNTS_CHUNK = 1024
"""Bins in a chunk of counts, of all channels: about 1.3 s (chosen here)."""

MISSING_COUNT = 255
"""What Zarr fills in for a missing chunk of counts; so data end at 254 (chosen here)."""


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
    _rows: "_Rows" = dataclasses.field(repr=False)
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
        _require_range(f"{self.name}, presentation {presentation_index}", start, stop, shown.bins)
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
        order = _permutation(self.name, permutation, self.channels)
        store = _store(self._rows.url, read_only=False)
        group = zarr.open_group(store, path=_alignment(self.name), mode="a")
        group.update_attributes({"permutation": order.tolist()})
        self._permutation = order


class Cohort:
    """Sounds, and animals that heard them. Made by `create` and `Cohort.open`.

    It may be sent to other processes: files are opened where they are read.
    """

    path: str
    """Absolute path or URL."""
    description: dict[str, Any]
    sounds: list[SoundEntry]

    def __init__(self, path: str, attributes: dict[str, Any]):
        self.path = path
        self.description = attributes["description"]
        self.sounds = [SoundEntry(i, **entry) for i, entry in enumerate(attributes["sounds"])]
        self._starts = list(itertools.accumulate((s.samples for s in self.sounds), initial=0))
        self._rows = _Rows(path, "pressure", attributes["finished"]["token"])
        self._animals: dict[str, AnimalRecording] = {}

    @classmethod
    def open(cls, path: str | Path) -> "Cohort":
        """Open a cohort and check that every chunk is there (by listing names, reading no data).

        An animal that was never finished is left out. Animals added by another process appear when
        the cohort is opened again.

        Args:
            path: Local path or fsspec URL.

        Raises:
            ValueError: If there is no cohort, or it is half-written or damaged. The message names
                what is missing.
        """
        path = _absolute(path)
        store = _store(path)
        attributes = _attributes(store, "")
        if attributes is None:
            raise ValueError(
                f"{path}: no cohort here, zarr.json is missing; check the path, "
                "or make a cohort with icsim.store.create"
            )
        if {key: attributes.get(key) for key in FORMAT} != FORMAT:
            raise ValueError(f"{path}: not a cohort of this version ({FORMAT}); make it again")
        if "finished" not in attributes:
            raise ValueError(
                f"{path}: half-written, its sounds were never finished; "
                "create it again at the same place"
            )
        missing = _missing(store, "", attributes["finished"]["arrays"])
        missing += [] if "zarr.json" in _list(store, "animals") else ["animals/zarr.json"]
        _refuse_missing(path, missing, "create the cohort again")
        cohort = cls(path, attributes)
        for name in sorted(_list(store, "animals") - {"zarr.json"}):
            cohort._load_animal(store, name)
        return cohort

    def pressure(self, index: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Samples of one sound.

        Args:
            index: Which of `sounds`.
            start: First sample; those before 0 are zeros, the context of a sound's beginning.
            stop: The sample after the last; the end when None.

        Returns:
            Pressure [Pa], float32 `(T,)`.

        Raises:
            ValueError: If there is no such sound or sample, or a chunk is damaged.
        """
        if not 0 <= index < len(self.sounds):
            raise ValueError(f"no sound {index}; there are {len(self.sounds)}, counted from 0")
        entry, first = self.sounds[index], self._starts[index]
        stop = entry.samples if stop is None else stop
        _require_range(f"sound {index} ({entry.name})", max(start, 0), stop, entry.samples)
        sound = torch.zeros(stop - start)
        rows = self._rows.read(first + max(start, 0), first + stop)
        sound.numpy()[max(-start, 0) :] = rows
        return sound

    def animals(self, role: str | None = None) -> list[str]:
        """Names of the animals, sorted; only the seen or the unseen ones if `role` says so."""
        if role is not None:
            _require_one_of("role", role, ROLES)
        return sorted(n for n, a in self._animals.items() if role in (None, a.role))

    def animal(self, name: str) -> AnimalRecording:
        """One animal; its counts are read when they are asked for.

        Raises:
            ValueError: If the cohort has no such animal.
        """
        if name not in self._animals:
            there = ", ".join(self.animals()) or "none"
            raise ValueError(f"{self.path}: no animal {name!r}; those there: {there}")
        return self._animals[name]

    def add_animal(
        self, name: str, recording: Recording, truth: dict[str, Any] | None = None
    ) -> None:
        """Append an animal. It appears whole or not at all; no other animal is touched.

        Args:
            name: Letters, digits, `_` and `-`; not that of another animal.
            recording: What was recorded. Its counts are taken one presentation at a time.
            truth: What is known of a simulated animal: tensors, arrays, and values that JSON can
                hold, in dictionaries as deep as needed. None for a real animal.

        Raises:
            ValueError: If the animal is there already, or anything in the recording does not fit.
        """
        store, base = _store(self.path, read_only=False), f"animals/{name}"
        self._require_new_name(store, name)
        presentations = _presentations(name, recording, self.sounds)
        attributes = _animal_attributes(name, recording, presentations)
        values, arrays = _split_truth(truth or {})
        group = _empty_group(store, base)
        shape = (sum(p.bins for p in presentations), recording.channels)
        chunks = (COUNTS_CHUNK, recording.channels)
        written = {"counts": _create_array(group, "counts", shape, chunks, "uint8", MISSING_COUNT)}
        blocks = _checked_counts(name, recording, presentations, self.sounds)
        _write_rows(written["counts"], blocks)
        if truth is not None:
            group.create_group("truth", attributes={"values": values})
        for key, array in arrays.items():
            key = f"truth/{key}"
            written[key] = _create_array(group, key, array.shape, array.shape, array.dtype, 0)
            written[key][...] = array
        group.update_attributes(attributes | {"simulated": truth is not None} | _finished(written))
        self._load_animal(store, name)

    def truth(self, name: str) -> dict[str, Any]:
        """What is known of a simulated animal, as given to `add_animal`, arrays as tensors.

        For judging what a network has learned; nothing that trains may read it.

        Raises:
            ValueError: If there is no such animal, or it is a real one.
        """
        self.animal(name)
        store = _store(self.path)
        if not _attributes(store, f"animals/{name}")["simulated"]:
            raise ValueError(f"{name} is a real recording, so no truth is known of it")
        base = f"animals/{name}/truth"
        truth = _attributes(store, base)["values"]
        for key in _list(store, base) - {"zarr.json"}:
            *parents, last = key.split(".")
            place = functools.reduce(lambda tree, parent: tree[parent], parents, truth)
            with _naming(self.path, f"{base}/{key}"):
                array = zarr.open_array(store, path=f"{base}/{key}", mode="r")[...]
            place[last] = torch.from_numpy(np.array(array))
        return truth

    def _require_new_name(self, store: "_Store", name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"animal name {name!r}: use letters, digits, '_' and '-'")
        there = _attributes(store, f"animals/{name}") or {}
        if name in self._animals or "finished" in there:
            raise ValueError(
                f"{self.path}: animal {name!r} is there already; choose another name, "
                f"or delete the folder animals/{name} first"
            )

    def _load_animal(self, store: "_Store", name: str) -> None:
        base = f"animals/{name}"
        remedy = f"delete the folder {base} and add the animal again"
        attributes = _attributes(store, base)
        if attributes is None and "counts" in _list(store, base):
            _refuse_missing(self.path, [f"{base}/zarr.json"], remedy)
        if attributes is None or "finished" not in attributes:
            return
        missing = _missing(store, base + "/", attributes["finished"]["arrays"])
        if attributes["simulated"] and "zarr.json" not in _list(store, f"{base}/truth"):
            missing.append(f"{base}/truth/zarr.json")
        _refuse_missing(self.path, missing, remedy)
        order = (_attributes(store, _alignment(name)) or {}).get("permutation")
        if order is not None:
            order = _permutation(name, order, attributes["channels"])
        rows = _Rows(self.path, f"{base}/counts", attributes["finished"]["token"])
        self._animals[name] = _animal(name, attributes, self.sounds, rows, order)


def create(
    path: str | Path, sounds: Sequence[Sound], description: dict[str, Any] | None = None
) -> Cohort:
    """Begin a cohort with its sounds; animals are added afterwards.

    Args:
        path: Local path or fsspec URL; a half-written cohort there is replaced.
        sounds: Each with a name of its own.
        description: Anything worth keeping that JSON can hold: how the cohort was made.

    Raises:
        ValueError: If something else is at the path, a finished cohort included, or a sound cannot
            be stored.
    """
    path = _absolute(path)
    entries = _entries(sounds)
    _require_json("description", description)
    _refuse_occupied(path)
    # zarr changes the attributes that it is given when they are updated, so it gets a copy
    root = zarr.open_group(_store(path, read_only=False), mode="w", attributes=dict(FORMAT))
    shape = (sum(sound.pressure.shape[-1] for sound in sounds),)
    pressure = _create_array(root, "pressure", shape, (PRESSURE_CHUNK,), "float32", math.nan)
    _write_rows(pressure, (_array(sound.pressure) for sound in sounds))
    root.create_group("animals")
    root.update_attributes(
        {"description": description or {}, "sounds": entries} | _finished({"pressure": pressure})
    )
    return Cohort.open(path)


def _entries(sounds: Sequence[Sound]) -> list[dict[str, Any]]:
    """The sounds without their samples, checked."""
    if not sounds:
        raise ValueError("a cohort needs at least one sound")
    names = set()
    for sound in sounds:
        if sound.name in names:
            raise ValueError(f"two sounds are called {sound.name!r}; give each its own name")
        names.add(sound.name)
        if sound.pressure.ndim != 1:
            raise ValueError(f"{sound.name}: pressure must be (T,), not {sound.pressure.shape}")
        _require_one_of(f"{sound.name}: split", sound.split, SPLITS)
        validate(sound.pressure, sound.name)
    fields = ("name", "kind", "source", "split")
    return [
        {field: getattr(sound, field) for field in fields}
        | {"level_db_spl": level(sound.pressure).item(), "samples": len(sound.pressure)}
        for sound in sounds
    ]


def _animal(
    name: str,
    attributes: dict[str, Any],
    sounds: list[SoundEntry],
    rows: "_Rows",
    permutation: np.ndarray | None,
) -> AnimalRecording:
    thresholds, frequencies = attributes["thresholds_db_spl"], attributes["abr_frequencies_hz"]
    return AnimalRecording(
        name=name,
        status=attributes["status"],
        role=attributes["role"],
        thresholds_db_spl=None if thresholds is None else torch.tensor(thresholds),
        abr_frequencies_hz=None if frequencies is None else tuple(frequencies),
        channels=attributes["channels"],
        presentations=_place(attributes["presentations"], sounds),
        _rows=rows,
        _permutation=permutation,
    )


def _refuse_occupied(path: str) -> None:
    is_file = "://" not in path and os.path.isfile(path)
    if not is_file and not _list(_store(path), ""):
        return
    attributes = _attributes(_store(path), "") or {}
    if {key: attributes.get(key) for key in FORMAT} != FORMAT:
        raise ValueError(f"{path}: holds something else; choose an empty place for the cohort")
    if "finished" in attributes:
        raise ValueError(
            f"{path}: holds a finished cohort; open it with Cohort.open, or delete it first"
        )


# What may be added ------------------------------------------------------------------------------


def _presentations(name: str, recording: Recording, sounds: list[SoundEntry]) -> list[Presentation]:
    """The presentations with their place in the counts, checked."""
    if not recording.presentations:
        raise ValueError(f"{name}: no presentation; an animal must have heard a sound")
    for number, (sound, time_h) in enumerate(recording.presentations):
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
    _refuse_overlap(name, recording.presentations, sounds)
    return _place(recording.presentations, sounds)


def _refuse_overlap(
    name: str, presentations: Sequence[tuple[int, float]], sounds: list[SoundEntry]
) -> None:
    tolerance_h = 1 / RESPONSE_RATE / 3600  # times are rounded by whoever wrote them down
    in_time = sorted(range(len(presentations)), key=lambda number: presentations[number][1])
    for one, two in itertools.pairwise(in_time):
        sound, time_h = presentations[one]
        end_h = time_h + sounds[sound].samples / SAMPLE_RATE / 3600
        if presentations[two][1] < end_h - tolerance_h:
            raise ValueError(
                f"{name}: presentation {two} begins at {presentations[two][1]:.6f} h, before "
                f"presentation {one} ends at {end_h:.6f} h; two sounds cannot be heard at once: "
                "correct the times (in hours)"
            )


def _place(presentations: Sequence[Sequence], sounds: list[SoundEntry]) -> list[Presentation]:
    bins = [sounds[sound].bins for sound, _ in presentations]
    starts = itertools.accumulate(bins, initial=0)
    return [
        Presentation(sound, time_h, start, n)
        for (sound, time_h), start, n in zip(presentations, starts, bins, strict=False)
    ]


def _animal_attributes(
    name: str, recording: Recording, presentations: list[Presentation]
) -> dict[str, Any]:
    """What `animals/<name>/zarr.json` says of the animal, checked."""
    _require_one_of(f"{name}: status", recording.status, STATUSES)
    _require_one_of(f"{name}: role", recording.role, ROLES)
    if recording.channels < 1:
        raise ValueError(f"{name}: {recording.channels} channels; at least one is needed")
    thresholds, frequencies = recording.thresholds_db_spl, recording.abr_frequencies_hz
    if thresholds is not None:
        thresholds = [float(threshold) for threshold in thresholds]
        frequencies = None if frequencies is None else [float(hz) for hz in frequencies]
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
    return {
        "status": recording.status,
        "role": recording.role,
        "thresholds_db_spl": thresholds,
        "abr_frequencies_hz": None if thresholds is None else frequencies,
        "channels": int(recording.channels),
        "presentations": [[int(p.sound), float(p.time_h)] for p in presentations],
    }


def _checked_counts(
    name: str, recording: Recording, presentations: list[Presentation], sounds: list[SoundEntry]
) -> Iterator[np.ndarray]:
    """The counts of each presentation as uint8 `(N, C)`, each checked as it comes."""
    blocks = iter(recording.counts)
    for number, shown in enumerate(presentations):
        block = next(blocks, None)
        if block is None:
            raise ValueError(f"{name}: counts for {number} of {len(presentations)} presentations")
        what = f"{name}, presentation {number} ({sounds[shown.sound].name})"
        yield _checked_block(what, _array(block), shown.bins, recording.channels)
    if next(blocks, None) is not None:
        raise ValueError(f"{name}: counts for more than its {len(presentations)} presentations")


def _checked_block(what: str, block: np.ndarray, bins: int, channels: int) -> np.ndarray:
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
            f"rate of {RESPONSE_RATE:.6f} Hz; count the spikes again at that rate"
        )
    if block.size and (block.min() < 0 or block.max() >= MISSING_COUNT):
        raise ValueError(
            f"{what}: counts from {block.min()} to {block.max()} spikes a bin; "
            f"0 to {MISSING_COUNT - 1} can be stored, so clip or repair them"
        )
    return block.astype(np.uint8)  # a copy: a generator may fill the same array again


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _split_truth(truth: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Separate what JSON holds (nested) from arrays (flat, named by their keys joined by dots)."""
    values, arrays = {}, {}
    for key, value in truth.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", key):
            raise ValueError(f"truth key {key!r}: use letters, digits, '_' and '-'")
        if isinstance(value, dict):
            values[key], deeper = _split_truth(value)
            arrays |= {f"{key}.{name}": array for name, array in deeper.items()}
        elif isinstance(value, Tensor | np.ndarray):
            arrays[key] = _array(value)
        else:
            values[key] = value.item() if isinstance(value, np.generic) else value
            _require_json(f"truth of {key!r}", values[key])
    return values, arrays


def _permutation(
    name: str, order: Tensor | np.ndarray | Sequence[int], channels: int
) -> np.ndarray:
    order = np.array(order)
    if order.shape != (channels,) or not np.array_equal(np.sort(order), np.arange(channels)):
        raise ValueError(
            f"{name}: not a permutation of its {channels} channels; "
            f"give each of 0 to {channels - 1} once"
        )
    return order.astype(np.int64)


def _require_one_of(what: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{what} is {value!r}; use one of {', '.join(allowed)}")


def _require_range(what: str, start: int, stop: int, length: int) -> None:
    if not 0 <= start <= stop <= length:
        raise ValueError(f"{what}: no range {start} to {stop}; its length is {length}")


def _require_json(what: str, value: Any) -> None:
    try:
        json.dumps(value)
    except TypeError as error:
        raise ValueError(f"{what} cannot be stored as JSON ({error}); convert it") from error


# Chunks: written whole, listed, read through a cache --------------------------------------------

_Store = LocalStore | FsspecStore


class ChunkCache:
    """The chunks read last, decoded, as many as fit into `bytes_max`."""

    def __init__(self, bytes_max: int):
        self.bytes_max = bytes_max
        self.bytes = 0
        self._chunks: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple) -> np.ndarray | None:
        """The chunk, or None if it has to be read."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def put(self, key: tuple, chunk: np.ndarray) -> None:
        """Keep a chunk, and let go of those not used for longest."""
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self.bytes += chunk.nbytes
            while self.bytes > self.bytes_max and self._chunks:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes


cache = ChunkCache(2 * 2**30)
"""Shared by all cohorts of a process (every worker of a DataLoader has its own, so that memory
grows with the workers); set `cache.bytes_max` to what the machine can spare."""


@dataclasses.dataclass(frozen=True)
class _Rows:
    """One array on disk, read by rows."""

    url: str
    name: str
    token: str
    """Another one for each writing, so that the cache never confuses an array with its heir."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows from `start` to `stop`; read-only, part of a cached chunk where it can be."""
        array = _open_array(self, os.getpid())
        rows = array.chunks[0]
        first = start // rows
        chunks = [self._chunk(array, index) for index in range(first, -(-stop // rows))]
        if not chunks:
            return np.empty((0, *array.shape[1:]), array.dtype)
        joined = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
        return joined[start - first * rows : stop - first * rows]

    def _chunk(self, array: zarr.Array, index: int) -> np.ndarray:
        chunk = cache.get((self, index))
        if chunk is None:
            chunk = self._load(array, index)
            chunk.setflags(write=False)
            cache.put((self, index), chunk)
        return chunk

    def _load(self, array: zarr.Array, index: int) -> np.ndarray:
        rows = array.chunks[0]
        place = ".".join([f"{self.name}/c", str(index), *"0" * (array.ndim - 1)])
        with _naming(self.url, place):
            chunk = np.asarray(array[index * rows : (index + 1) * rows])
            if np.array_equal(chunk, np.full_like(chunk, array.fill_value), equal_nan=True):
                raise ValueError("it is missing")
        return chunk


@functools.lru_cache(maxsize=1024)
def _open_array(rows: _Rows, process: int) -> zarr.Array:
    """Opened once in each process: connections do not survive a fork."""
    with _naming(rows.url, f"{rows.name}/zarr.json"):
        return zarr.open_array(_store(rows.url), path=rows.name, mode="r")


@contextlib.contextmanager
def _naming(path: str, place: str) -> Iterator[None]:
    """Say where the damage is: what is below names no file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path}: {place} is damaged ({error}); restore it from a copy, "
            "or make what it belongs to again"
        ) from error


def _absolute(path: str | Path) -> str:
    path = str(path).removeprefix("file://")
    return path if "://" in path else os.path.abspath(path)


def _store(path: str, read_only: bool = True) -> _Store:
    if "://" in path:
        return FsspecStore.from_url(path, read_only=read_only)
    return LocalStore(path, read_only=read_only)


def _alignment(name: str) -> str:
    return f"animals/{name}/alignment"


def _list(store: _Store, folder: str) -> set[str]:
    return {key.strip("/") for key in collect_aiterator(store.list_dir(folder))}


def _attributes(store: _Store, group: str) -> dict[str, Any] | None:
    """A group's attributes, or None if it is not there."""
    if "zarr.json" not in _list(store, group):
        return None
    with _naming(str(store), f"{group}/zarr.json".lstrip("/")):
        return zarr.open_group(store, path=group, mode="r").attrs.asdict()


def _empty_group(store: _Store, base: str) -> zarr.Group:
    """A new group in place of what an interrupted write has left."""
    for leftover in _list(store, base) - {"zarr.json"}:  # last, as data without it means damage
        sync(store.delete_dir(f"{base}/{leftover}"))
    return zarr.create_group(store, path=base, overwrite=True)


def _create_array(
    group: zarr.Group, name: str, shape: tuple, chunks: tuple, dtype: Any, fill_value: float
) -> zarr.Array:
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, n) for n in chunks),
        dtype=dtype,
        fill_value=np.asarray(fill_value, dtype).item(),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        # all chunks in one folder: listing it is the whole check
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )


def _write_rows(array: zarr.Array, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks of rows one after the other, each chunk once, holding few at a time."""
    run = 16 * array.chunks[0]
    waiting, held, written = [], 0, 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= run:
            rows = np.concatenate(waiting)
            whole = held - held % array.chunks[0]
            array[written : written + whole] = rows[:whole]
            waiting, held, written = [rows[whole:]], held - whole, written + whole
    if held:
        array[written:] = np.concatenate(waiting)


def _finished(arrays: dict[str, zarr.Array]) -> dict[str, Any]:
    """The attribute that is written last."""
    shapes = {name: [list(array.shape), list(array.chunks)] for name, array in arrays.items()}
    return {"finished": {"token": uuid.uuid4().hex, "arrays": shapes}}


def _missing(store: _Store, base: str, arrays: dict[str, list]) -> list[str]:
    """Names of the chunks and metadata that should be there and are not."""
    missing = []
    for name, (shape, chunks) in arrays.items():
        counts = [range(-(-n // chunk)) for n, chunk in zip(shape, chunks, strict=True)]
        places = (".".join(["c", *map(str, index)]) for index in itertools.product(*counts))
        there = _list(store, base + name)
        missing += [f"{base}{name}/{p}" for p in ("zarr.json", *places) if p not in there]
    return missing


def _refuse_missing(path: str, missing: list[str], remedy: str) -> None:
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{path}: damaged, missing {', '.join(missing[:3])}{more}; "
            f"restore it from a copy, or {remedy}"
        )
