"""Loops over samples, compiled."""

from collections.abc import Callable

import numba

VECTORISED = {"fastmath": {"reassoc", "contract"}, "error_model": "numpy"}
"""Options by which sums may be vectorised, and divisions: by zero they raise nothing."""


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
