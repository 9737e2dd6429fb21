"""Loops over samples, compiled."""

from collections.abc import Callable

import numba


def compiled(**options) -> Callable:
    """A decorator: Numba's `njit` with these options, kept on disk where there is a place for it.

    >>> compiled()(lambda x: x + 1)(1)
    2
    """

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # a read-only installation: compiled anew in every process
            return numba.njit(**options)(function)

    return decorate
