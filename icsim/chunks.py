"""Arrays on disk in chunks: written whole, listed, and read by rows through a bounded cache.

The one place that knows Zarr. Everything lies on a local disk or wherever fsspec reaches.

Only arrays as `create_array` writes them are read: Zarr format 3, and its codecs alone. A codec is
a program that decodes what a file holds, and one of format 2, `pickle`, runs any code that whoever
wrote the file has put there.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from icsim.extras import extra

with extra("cohort"):
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import collect_aiterator, sync
    from zarr.storage import FsspecStore, LocalStore

Place = LocalStore | FsspecStore
"""Where groups and arrays lie; see `connect`."""

ZARR_FORMAT: Final = 3
"""The one format that is written and read."""

CODECS = ("bytes", "zstd", "crc32c")
"""Names of the codecs of `create_array`; arrays with others are refused."""

RUN_CHUNKS = 16
"""Chunks that are written together: they are all that is held in memory (chosen here)."""

# Places and what is in them ----------------------------------------------------------------------


def absolute(path: str | Path) -> str:
    """Absolute local path, or the URL as it is."""
    path = str(path).removeprefix("file://")
    return path if "://" in path else os.path.abspath(path)


def connect(url: str, read_only: bool = True) -> Place:
    """The place at an absolute path or fsspec URL; nothing is read or made."""
    if "://" in url:
        return FsspecStore.from_url(url, read_only=read_only)
    return LocalStore(url, read_only=read_only)


def names(place: Place, folder: str) -> set[str]:
    """What a folder holds; nothing if it is not there."""
    return {key.strip("/") for key in collect_aiterator(place.list_dir(folder))}


def read_attributes(place: Place, group: str) -> dict[str, Any] | None:
    """A group's attributes, or None if it is not there.

    Raises:
        ValueError: If they are damaged, or the group is none of Zarr format 3.
    """
    metadata = _metadata(place, group, "group")
    return None if metadata is None else metadata.get("attributes", {})


def write_attributes(place: Place, group: str, attributes: dict[str, Any]) -> None:
    """Set attributes of a group, made if needed, in a single write."""
    opened = zarr.open_group(
        place, path=group, mode="a", zarr_format=ZARR_FORMAT, use_consolidated=False
    )
    opened.update_attributes(attributes)


def _metadata(place: Place, node: str, kind: str) -> dict[str, Any] | None:
    """What `zarr.json` says of a group or an array; None if it is not there.

    Raises:
        ValueError: If it is damaged, or of something else than a group or array of Zarr format 3.
    """
    if "zarr.json" not in names(place, node):
        return None
    file = f"{node}/zarr.json".lstrip("/")
    with _naming(place, file):
        content = sync(place.get(file, default_buffer_prototype()))
        if content is None:
            raise ValueError("it is missing")
        metadata = json.loads(content.to_bytes())
        what = metadata.get("zarr_format"), metadata.get("node_type")
    if what != (ZARR_FORMAT, kind):
        raise ValueError(
            f"{place}: {file} says Zarr format {what[0]}, {what[1]}; a cohort has the {kind} in "
            f"format {ZARR_FORMAT} and nothing else is read: make the cohort again with icsim.store"
        )
    return metadata


def _require_own_codecs(place: Place, name: str) -> None:
    """Raise a ValueError unless an array is such as `create_array` writes; nothing is decoded."""
    metadata = _metadata(place, name, "array")
    if metadata is None:
        raise ValueError(
            f"{place}: {name} is no array of Zarr format {ZARR_FORMAT}, it has no zarr.json; other "
            "formats are not read, as they may run code: make the cohort again with icsim.store"
        )
    listed = metadata.get("codecs")
    codecs = [codec.get("name") if isinstance(codec, dict) else codec for codec in listed or []]
    if foreign := [codec for codec in codecs if codec not in CODECS]:
        raise ValueError(
            f"{place}: {name} has the codec {foreign[0]!r}; only {', '.join(CODECS)} are read, as "
            "others may run code: make the cohort again with icsim.store"
        )


# Writing -----------------------------------------------------------------------------------------


def empty_group(place: Place, base: str, attributes: dict[str, Any] | None = None) -> zarr.Group:
    """A new group in place of what an interrupted write has left."""
    for leftover in names(place, base) - {"zarr.json"}:  # last, as data without it means damage
        sync(place.delete_dir(f"{base}/{leftover}".lstrip("/")))
    # zarr changes the attributes that it is given when they are updated, so it gets a copy
    return zarr.create_group(
        place,
        path=base,
        overwrite=True,
        attributes=dict(attributes or {}),
        zarr_format=ZARR_FORMAT,
    )


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    rows: int | None = None,
    fill_value: float = 0,
) -> zarr.Array:
    """A new array, compressed, with a checksum for each chunk.

    Args:
        group: What it belongs to.
        name: Its path in the group.
        shape: Its whole shape.
        dtype: A NumPy type.
        rows: How many a chunk has; all when None.
        fill_value: What a missing chunk is read as; `Rows` takes one of nothing else as missing.
    """
    chunks = shape if rows is None else (rows, *shape[1:])
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


def write_rows(array: zarr.Array, blocks: Iterable[np.ndarray]) -> None:
    """Write blocks of rows one after the other, each chunk once, holding few at a time."""
    waiting, held, written = [], 0, 0
    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= RUN_CHUNKS * array.chunks[0]:
            rows = np.concatenate(waiting)
            whole = held - held % array.chunks[0]
            array[written : written + whole] = rows[:whole]
            waiting, held, written = [rows[whole:]], held - whole, written + whole
    if held:
        array[written:] = np.concatenate(waiting)


def finish(group: zarr.Group, arrays: dict[str, zarr.Array], attributes: dict[str, Any]) -> None:
    """Write a group's attributes, last of all, with what must be there for it to be whole."""
    shapes = {name: [list(array.shape), list(array.chunks)] for name, array in arrays.items()}
    finished = {"token": uuid.uuid4().hex, "arrays": shapes}
    group.update_attributes(attributes | {"finished": finished})


def missing(place: Place, group: str, arrays: dict[str, list]) -> list[str]:
    """Paths of the chunks and metadata that `finish` announced and that are not there."""
    gone = []
    for name, (shape, chunks) in arrays.items():
        base = f"{group}/{name}".lstrip("/")
        counts = [range(-(-n // chunk)) for n, chunk in zip(shape, chunks, strict=True)]
        wanted = (".".join(["c", *map(str, index)]) for index in itertools.product(*counts))
        there = names(place, base)
        gone += [f"{base}/{file}" for file in ("zarr.json", *wanted) if file not in there]
    return gone


def refuse_missing(path: str, gone: list[str], remedy: str) -> None:
    """Raise a ValueError that names what is gone, if anything is."""
    if gone:
        more = f" and {len(gone) - 3} more" if len(gone) > 3 else ""
        raise ValueError(
            f"{path}: damaged, missing {', '.join(gone[:3])}{more}; "
            f"restore it from a copy, or {remedy}"
        )


# Reading -----------------------------------------------------------------------------------------


class ChunkCache:
    """The chunks read last, decoded, as many as fit into `bytes_max`."""

    def __init__(self, bytes_max: int):
        self.bytes_max = bytes_max
        self.bytes = 0
        self._chunks: OrderedDict[tuple, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple, load: Callable[[], np.ndarray]) -> np.ndarray:
        """The chunk, which `load` reads if it is not here; those not used for longest go."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        chunk = load()  # threads read side by side, so the lock is open
        with self._lock:
            self.bytes += 0 if key in self._chunks else chunk.nbytes
            self._chunks[key] = chunk
            while self.bytes > self.bytes_max:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes
        return chunk


cache = ChunkCache(2 * 2**30)
"""Shared by all arrays of a process (every worker of a DataLoader has its own, so that memory
grows with the workers); set `cache.bytes_max` to what the machine can spare."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """One array, read by rows; it may be sent to other processes."""

    url: str
    name: str
    token: str
    """Another one for each writing, so that the cache never confuses an array with its heir."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows from `start` to `stop`; read-only, part of a cached chunk where it can be.

        Raises:
            ValueError: If a chunk is missing or damaged.
        """
        array = _open_array(self, os.getpid())
        length = array.chunks[0]
        first = start // length
        chunks = [
            cache.get((self, index), functools.partial(self._load, array, index))
            for index in range(first, -(-stop // length))
        ]
        if not chunks:
            return np.empty((0, *array.shape[1:]), array.dtype)
        joined = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
        return joined[start - first * length : stop - first * length]

    def _load(self, array: zarr.Array, index: int) -> np.ndarray:
        length = array.chunks[0]
        file = ".".join([f"{self.name}/c", str(index), *"0" * (array.ndim - 1)])
        with _naming(self.url, file):
            chunk = np.asarray(array[index * length : (index + 1) * length])
            if np.array_equal(chunk, np.full_like(chunk, array.fill_value), equal_nan=True):
                raise ValueError("it is missing")
        chunk.setflags(write=False)
        return chunk


def read_whole(place: Place, name: str) -> np.ndarray:
    """A small array, all of it, as a copy; not kept in the cache.

    Raises:
        ValueError: If it is missing, damaged, or not such as `create_array` writes.
    """
    _require_own_codecs(place, name)
    with _naming(place, name):
        array = zarr.open_array(place, path=name, mode="r", zarr_format=ZARR_FORMAT)
        return np.array(array[...])


@functools.lru_cache(maxsize=1024)
def _open_array(rows: Rows, process: int) -> zarr.Array:
    """Opened once in each process: connections do not survive a fork."""
    place = connect(rows.url)
    _require_own_codecs(place, rows.name)
    with _naming(rows.url, f"{rows.name}/zarr.json"):
        return zarr.open_array(place, path=rows.name, mode="r", zarr_format=ZARR_FORMAT)


@contextlib.contextmanager
def _naming(place: Place | str, file: str) -> Iterator[None]:
    """Say where the damage is: what zarr raises names no file."""
    try:
        yield
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{place}: {file} is damaged ({error}); restore it from a copy, "
            "or make what it belongs to again"
        ) from error
