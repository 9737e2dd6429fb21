"""One runnable file per experiment.

Threads of OpenMP that wait for one another sleep instead of spinning: on cores that other programs
use too, a thread that spins keeps the one that it waits for from running. The library reads these
settings when torch loads it, and processes that a recipe starts inherit them. What the user has
set stays. See `docs/speed.md`.
"""

import multiprocessing
import os
import signal
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")  # GNU's library alone


def _say_interrupted(kind, error, traceback) -> None:
    """One line for Ctrl-C; Python then ends by the same signal."""
    if issubclass(kind, KeyboardInterrupt):
        print("\ninterrupted before anything was done", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


if multiprocessing.parent_process() is not None:
    # Ctrl-C reaches every process of a terminal; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
elif sys.argv[:1] == ["-m"]:  # a command, which loads its libraries for some seconds
    sys.excepthook = _say_interrupted
