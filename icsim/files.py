"""Files that appear whole or not at all."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A place beside to write a file; it becomes `path` once it is written and on the disk.

    If writing fails, what was at `path` before stays, and nothing is left beside it.

    Args:
        path: Where the file is to appear; folders are made where they are missing.

    Raises:
        OSError: If it cannot be written; the error names `path`, whatever was being read.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole_file(folder / "notes.txt") as beside:
    ...     _ = beside.write_text("all of it")
    >>> [file.name for file in folder.iterdir()]
    ['notes.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    try:
        beside.touch()
        usual = beside.stat().st_mode
        yield beside
        beside.chmod(usual)  # as the umask has it, whatever a library gave its own file
        # Or a machine that loses power may keep the name and lose what it names.
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        if error.filename not in (None, str(beside)):
            raise
        reason = error.strerror or f"cannot be written ({error})"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, content) -> None:
    """Write JSON that appears whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all; text in UTF-8."""
    with whole_file(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
