"""What a run needs to go on where it was stopped."""

import ctypes
import dataclasses
import errno
import functools
import itertools
import json
import os
import platform
import sys
import threading
import time
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import auto_cli, set_parsing_settings

from icsim.files import write_json

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors that only the place that is written to can be at fault for."""

REFUSED, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes: nothing was done; work had begun; Ctrl-C. Source of the last: 128 + SIGINT, as shells
count."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of settings. Source: malloc.h of the GNU C library."""

LOGS = "events.out.tfevents"
"""How TensorBoard's files begin: a run that left nothing else left nothing to go on from."""

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse(config_class: type, arguments: list[str] | None = None):
    """The configuration that a command line and its `--config FILE.yaml` ask for.

    Exits with a message that names an unknown key or a wrong value.
    """
    try:
        config = auto_cli(config_class, args=arguments, as_positional=False, allow_abbrev=False)
        _require_used(config, sys.argv[1:] if arguments is None else arguments)
        return config
    except ValueError as error:  # of a nested configuration, which checks itself
        said = f"error: {error}"
    except TypeError as error:
        hints = typing.get_type_hints(config_class)
        nested = [name for name, hint in hints.items() if dataclasses.is_dataclass(hint)]
        said = f"error: {' or '.join(nested)}: its fields and their values are needed ({error})"
    print(said, file=sys.stderr)
    sys.exit(REFUSED)


def _require_used(config, arguments: Sequence[str]) -> None:
    """Whether every setting of a part was used.

    Of parts that are told apart by `kind`, the last option decides which it is, and what was set of
    another one would be forgotten in silence.

    Raises:
        ValueError: If one was not; the message names it.
    """
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for word, following in itertools.pairwise([*words, ""]):
        names = word.removeprefix("--").split(".")
        if not word.startswith("--") or len(names) < 2:
            continue
        part = functools.reduce(lambda one, name: getattr(one, name, None), names[:-1], config)
        kind = getattr(part, "kind", None)
        if kind is None:
            continue
        if not hasattr(part, names[-1]) or (names[-1] == "kind" and kind != following):
            place = ".".join(names[:-1])
            raise ValueError(
                f"{word} {following} does not go together with other settings of {place}, which "
                f"became of kind {kind!r}; give all of it at once, as --{place} "
                f"'{{kind: {following if names[-1] == 'kind' else kind}, ...}}'"
            )


@dataclasses.dataclass
class Progress:
    """How far this process has come with its recipe."""

    begun: bool = False
    """Whether all is checked, and work has begun."""
    folder: Path | None = None
    """The folder from which the same command goes on."""


_PROGRESS = Progress()


def begin(folder: Path | None = None) -> None:
    """Say that all input is checked: what goes wrong from here on did not happen before any work.

    Args:
        folder: The folder from which the same command goes on, if it does not begin again.
    """
    if not _PROGRESS.begun:
        _PROGRESS.begun, _PROGRESS.folder = True, folder


def run(work: Callable, config_class: type):
    """Do a recipe's work as the command line asks; what can go wrong ends in one message.

    That is bad input, a disk that is full or must not be written, a process that was killed, a loss
    that is no number, a package that is missing, and Ctrl-C. The environment variable
    `ICSIM_TRACEBACK` shows where it came from. The exit code is 2 if nothing was done, 1 if work
    had begun, and 130 after Ctrl-C.
    """
    _PROGRESS.begun, _PROGRESS.folder = False, None
    config = parse(config_class)
    _keep_memory()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # One of several processes would wait for the others for half an hour.
        end_after(functools.partial(_outlive, os.getppid()))
    try:
        return work(config)
    except (ValueError, OSError, FloatingPointError, ImportError, KeyboardInterrupt) as error:
        if os.environ.get("ICSIM_TRACEBACK"):
            raise
        print(_last_words(error), file=sys.stderr)
        if isinstance(error, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        sys.exit(FAILED if _PROGRESS.begun else REFUSED)


def _last_words(error: BaseException) -> str:
    """What is said of an error that ends a recipe."""
    if isinstance(error, KeyboardInterrupt):
        if not _PROGRESS.begun:
            return "\ninterrupted before anything was done"
        if _PROGRESS.folder is None:
            return "\ninterrupted: nothing of it is kept, the same command begins again"
        where = f"what was finished is kept in {_PROGRESS.folder}"
        return f"\ninterrupted: {where}, the same command goes on"
    said, remedy = str(error), ""
    if isinstance(error, OSError):
        place, reason = error.filename or _PROGRESS.folder, error.strerror or said
        if error.errno in NO_ROOM and place:
            said = f"{place}: cannot be written ({reason}); make room there or choose another place"
        elif error.filename:
            said = f"{place}: {reason}"
        if _PROGRESS.begun:
            remedy = "what was finished is kept: mend that and run the same command again\n"
    return f"error: {said}\n{remedy}(ICSIM_TRACEBACK=1 shows where)"


def _keep_memory() -> None:
    """Keep freed memory in this process: to fetch it anew for each step costs a fifth of the step.

    GNU's library hands large blocks back at once; others are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 2**30)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def end_after(wait: Callable[[], None]) -> None:
    """End this process once `wait` returns, whatever else it does."""

    def end() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _outlive(launcher: int) -> None:
    """Return when the launcher of this process is gone, even if it was killed."""
    while os.getppid() == launcher:
        time.sleep(1)


def claim(out: Path, config) -> None:
    """Make the folder of a run and write its configuration there; the file starts it again.

    Called once all input is checked, so that work begins with it. A claim of another configuration
    from which nothing came, neither state nor result, is replaced.

    Raises:
        ValueError: If the folder holds another run: resuming would mix the two.
    """
    path = out / "config.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(config)))
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is no folder; choose another --out")
    changed = _differences(path, wanted) if path.is_file() else []
    if changed:
        files = [file for file in out.rglob("*") if file.is_file() and file != path]
        if not all(file.name.startswith(LOGS) for file in files):
            raise ValueError(
                f"{out}: holds a run with other {', '.join(changed)}; "
                "choose another --out, or delete the folder"
            )
        for log in files:
            log.unlink()
    if changed or not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted)
    begin(out)


def _differences(path: Path, wanted: dict) -> list[str]:
    """Fields in which a stored configuration is another one."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        return sorted(key for key in wanted | earlier if wanted.get(key) != earlier.get(key))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: is no configuration of a run ({error}); delete it") from error
