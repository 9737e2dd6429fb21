"""Work that is done while a listener listens, so that nobody waits for it."""

import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any


class Ahead:
    """One thread that does some jobs in order; what is no longer wanted is forgotten.

    A job that hangs is never waited for beyond what a caller allows, nor when the program ends.
    """

    def __init__(self):
        self._changed = threading.Condition()
        self._jobs: dict[Hashable, Callable[[], Any]] = {}
        self._found: dict[Hashable, Any] = {}
        self._failed: dict[Hashable, Exception] = {}
        self._running: Hashable = None
        self._ended = False
        threading.Thread(target=self._work, daemon=True).start()

    def want(self, jobs: Mapping[Hashable, Callable[[], Any]]) -> None:
        """Do these, in order, and forget all others."""
        with self._changed:
            self._found = {key: self._found[key] for key in jobs if key in self._found}
            self._failed = {key: self._failed[key] for key in jobs if key in self._failed}
            done = (*self._found, *self._failed, self._running)
            self._jobs = {key: job for key, job in jobs.items() if key not in done}
            self._changed.notify_all()

    def get(self, key: Hashable, patience_s: float) -> Any | None:
        """The result of a job, which comes next if it has not begun; None if it takes too long.

        Raises:
            Exception: Whatever the job raised.
        """
        with self._changed:
            if key in self._jobs:
                self._jobs = {key: self._jobs[key], **self._jobs}
            self._changed.wait_for(
                lambda: key in self._found or key in self._failed or not self._awaits(key),
                patience_s,
            )
            if key in self._failed:
                raise self._failed[key]
            return self._found.get(key)

    def end(self) -> None:
        """Begin no more jobs."""
        with self._changed:
            self._ended = True
            self._jobs = {}
            self._changed.notify_all()

    def _awaits(self, key: Hashable) -> bool:
        return key in self._jobs or key == self._running

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._ended)
                if self._ended:
                    return
                key = next(iter(self._jobs))
                job = self._jobs.pop(key)
                self._running = key
            result, failed = None, None
            try:
                result = job()
            except Exception as error:  # whoever asks for the result gets it
                failed = error
            with self._changed:
                self._running = None
                if failed is not None:
                    self._failed[key] = failed
                else:
                    self._found[key] = result
                self._changed.notify_all()
