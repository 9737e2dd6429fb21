"""Cohorts on disk: the sounds once, and what each animal's midbrain answered to them.

A cohort is a Zarr 3 store, on a local disk or any place that fsspec reaches:

    zarr.json                    what the sounds are, and which chunks must be there
    pressure                     all sounds, one after the other [Pa], chunks of about 1 s
    animals/<name>/zarr.json     status, thresholds, presentations, and which chunks must be there
    animals/<name>/counts        all presentations, one after the other, `(N, C)` spikes a bin
    animals/<name>/alignment     which channels belong together, once that has been found
    animals/<name>/truth         simulated animals alone; read by `Cohort.truth` and nothing else

What must be there is written last, so that an interrupted write is known for what it is. To remove
an animal, delete its folder. Nothing but Zarr format 3, with the codecs of `icsim.chunks.CODECS`,
is read, so that a cohort of unknown origin runs no code.
"""

import dataclasses
import functools
import itertools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icsim import chunks, validation
from icsim.clock import Clock
from icsim.recording import (
    AnimalRecording,
    Recording,
    SoundEntry,
    alignment_group,
    checked_alignment,
    placed,
    require_range,
)
from icsim.sound import Sound

FORMAT = "icsim cohort"
"""How a cohort is told from any other Zarr store."""

VERSION = 2
"""Of the format that is written. In version 1, which is still read, all cohorts had one clock."""

PRESSURE_CHUNK = 24576
"""Samples in a chunk of sound: about 1 s at the usual rate (chosen here)."""

COUNTS_CHUNK = 1024
"""Bins in a chunk of counts, of all channels: about 1.3 s (chosen here)."""


class Cohort:
    """Sounds, and animals that heard them. Made by `create` and `Cohort.open`.

    It may be sent to other processes: files are opened where they are read.
    """

    path: str
    """Absolute path or URL."""
    description: dict[str, Any]
    clock: Clock
    """Of its sounds and its counts."""
    sounds: list[SoundEntry]

    def __init__(self, path: str, attributes: dict[str, Any]):
        self.path = path
        self.description = attributes["description"]
        self.clock = Clock(**attributes.get("clock", {}))
        width = self.clock.bin_samples
        self.sounds = [
            SoundEntry(i, bins=entry["samples"] // width, **entry)
            for i, entry in enumerate(attributes["sounds"])
        ]
        self._starts = list(itertools.accumulate((s.samples for s in self.sounds), initial=0))
        self._rows = chunks.Rows(path, "pressure", attributes["finished"]["token"])
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
        path = chunks.absolute(path)
        place = chunks.connect(path)
        attributes = chunks.read_attributes(place, "")
        if attributes is None:
            raise ValueError(
                f"{path}: no cohort here, zarr.json is missing; check the path, "
                "or make a cohort with icsim.store.create"
            )
        if not _is_cohort(attributes):
            there = attributes.get("format"), attributes.get("version")
            raise ValueError(
                f"{path}: not an {FORMAT} of version {VERSION} or before, but {there}; make it "
                "again, or install a newer icsim"
            )
        if "finished" not in attributes:
            raise ValueError(
                f"{path}: half-written, its sounds were never finished; "
                "create it again at the same place"
            )
        gone = chunks.missing(place, "", attributes["finished"]["arrays"])
        animals = chunks.names(place, "animals")
        gone += [] if "zarr.json" in animals else ["animals/zarr.json"]
        chunks.refuse_missing(path, gone, "create the cohort again")
        cohort = cls(path, attributes)
        for name in sorted(animals - {"zarr.json"}):
            cohort._load_animal(place, name)
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
        require_range(f"sound {index} ({entry.name})", max(start, 0), stop, entry.samples)
        sound = torch.zeros(stop - start)
        rows = self._rows.read(first + max(start, 0), first + stop)
        sound.numpy()[max(-start, 0) :] = rows
        return sound

    def animals(self, role: str | None = None) -> list[str]:
        """Names of the animals, sorted; only the seen or the unseen ones if `role` says so."""
        if role is not None:
            validation.require_one_of("role", role, validation.ROLES)
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
        place = chunks.connect(self.path, read_only=False)
        self._require_new_name(place, name)
        attributes = validation.animal_attributes(name, recording, self.sounds, self.clock)
        values, arrays = validation.split_truth(truth or {})
        group = chunks.empty_group(place, f"animals/{name}")
        shape = (sum(self.sounds[s].bins for s, _ in recording.presentations), recording.channels)
        counts = chunks.create_array(
            group, "counts", shape, "uint8", COUNTS_CHUNK, validation.MISSING_COUNT
        )
        chunks.write_rows(
            counts, validation.checked_counts(name, recording, self.sounds, self.clock)
        )
        written = {"counts": counts}
        if truth is not None:
            group.create_group("truth", attributes={"values": values})
        for key, array in arrays.items():
            stored = chunks.create_array(group, f"truth/{key}", array.shape, array.dtype)
            stored[...] = array
            written[f"truth/{key}"] = stored
        chunks.finish(group, written, attributes | {"simulated": truth is not None})
        self._load_animal(place, name)

    def simulated(self, name: str) -> bool:
        """Whether the truth of an animal is known.

        Raises:
            ValueError: If there is no such animal.
        """
        self.animal(name)
        return self._attributes(f"animals/{name}")["simulated"]

    def truth(self, name: str) -> dict[str, Any]:
        """What is known of a simulated animal, as given to `add_animal`, arrays as tensors.

        For judging what a network has learned; nothing that trains may read it.

        Raises:
            ValueError: If there is no such animal, or it is a real one.
        """
        if not self.simulated(name):
            raise ValueError(f"{name} is a real recording, so no truth is known of it")
        place, base = chunks.connect(self.path), f"animals/{name}/truth"
        truth = self._attributes(base)["values"]
        for key in chunks.names(place, base) - {"zarr.json"}:
            *parents, last = key.split(".")
            branch = functools.reduce(lambda tree, parent: tree[parent], parents, truth)
            branch[last] = torch.from_numpy(chunks.read_whole(place, f"{base}/{key}"))
        return truth

    def _attributes(self, group: str) -> dict[str, Any]:
        attributes = chunks.read_attributes(chunks.connect(self.path), group)
        if attributes is None:
            raise ValueError(f"{self.path}: {group} is gone; open the cohort again")
        return attributes

    def _require_new_name(self, place: chunks.Place, name: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(f"animal name {name!r}: use letters, digits, '_' and '-'")
        there = chunks.read_attributes(place, f"animals/{name}") or {}
        if name in self._animals or "finished" in there:
            raise ValueError(
                f"{self.path}: animal {name!r} is there already; choose another name, "
                f"or delete the folder animals/{name} first"
            )

    def _load_animal(self, place: chunks.Place, name: str) -> None:
        """Take in what is on disk, if it was finished."""
        base = f"animals/{name}"
        remedy = f"delete the folder {base} and add the animal again"
        stored = chunks.read_attributes(place, base)
        if stored is None and "counts" in chunks.names(place, base):
            chunks.refuse_missing(self.path, [f"{base}/zarr.json"], remedy)
        if stored is None or "finished" not in stored:
            return
        gone = chunks.missing(place, base, stored["finished"]["arrays"])
        if stored["simulated"] and "zarr.json" not in chunks.names(place, f"{base}/truth"):
            gone.append(f"{base}/truth/zarr.json")
        chunks.refuse_missing(self.path, gone, remedy)
        thresholds, frequencies = stored["thresholds_db_spl"], stored["abr_frequencies_hz"]
        alignments = {
            key: checked_alignment(name, channels=stored["channels"], **attributes)
            for key, attributes in (
                chunks.read_attributes(place, alignment_group(name)) or {}
            ).items()
        }
        self._animals[name] = AnimalRecording(
            name=name,
            status=stored["status"],
            role=stored["role"],
            thresholds_db_spl=None if thresholds is None else torch.tensor(thresholds),
            abr_frequencies_hz=None if frequencies is None else tuple(frequencies),
            channels=stored["channels"],
            presentations=placed(stored["presentations"], self.sounds),
            _rows=chunks.Rows(self.path, f"{base}/counts", stored["finished"]["token"]),
            _alignments=alignments,
        )


def create(
    path: str | Path,
    sounds: Sequence[Sound],
    description: dict[str, Any] | None = None,
    clock: Clock | None = None,
) -> Cohort:
    """Begin a cohort with its sounds; animals are added afterwards.

    Args:
        path: Local path or fsspec URL; a half-written cohort there is replaced.
        sounds: Each with a name of its own.
        description: Anything worth keeping that JSON can hold: how the cohort was made.
        clock: Of the sounds, and of the counts that animals will have; the published one if not
            given.

    Raises:
        ValueError: If something else is at the path, a finished cohort included, or a sound cannot
            be stored.
    """
    path, clock = chunks.absolute(path), clock or Clock()
    entries = validation.sound_attributes(sounds, clock)
    validation.require_json("description", description)
    _refuse_occupied(path)
    named = {"format": FORMAT, "version": VERSION, "clock": dataclasses.asdict(clock)}
    root = chunks.empty_group(chunks.connect(path, read_only=False), "", named)
    shape = (sum(entry["samples"] for entry in entries),)
    pressure = chunks.create_array(root, "pressure", shape, "float32", PRESSURE_CHUNK, math.nan)
    chunks.write_rows(pressure, (validation.as_array(sound.pressure) for sound in sounds))
    root.create_group("animals")
    chunks.finish(
        root, {"pressure": pressure}, {"description": description or {}, "sounds": entries}
    )
    return Cohort.open(path)


def _is_cohort(attributes: dict[str, Any]) -> bool:
    version = attributes.get("version")
    readable = isinstance(version, int) and 1 <= version <= VERSION
    return attributes.get("format") == FORMAT and readable


def _refuse_occupied(path: str) -> None:
    is_file = "://" not in path and os.path.isfile(path)
    if not is_file and not chunks.names(chunks.connect(path), ""):
        return
    attributes = chunks.read_attributes(chunks.connect(path), "") or {}
    if not _is_cohort(attributes):
        raise ValueError(f"{path}: holds something else; choose an empty place for the cohort")
    if "finished" in attributes:
        raise ValueError(
            f"{path}: holds a finished cohort; open it with Cohort.open, or delete it first"
        )
