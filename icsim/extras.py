"""Packages that only a part of the libraries needs, and what is said where one is missing."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what belongs to an optional part of the installation.

    Args:
        name: Of the extra in `pyproject.toml` that has the packages.

    Raises:
        ModuleNotFoundError: If one is missing; the message says how to install it.

    >>> with extra("fitting"):
    ...     import no_such_package
    Traceback (most recent call last):
    ModuleNotFoundError: no_such_package is not installed: pip install "icsim[fitting]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{error.name} is not installed: pip install "icsim[{name}]"', name=error.name
        ) from error
