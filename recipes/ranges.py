"""Ranges of values as types, for the fields of configurations.

A command line, a YAML file and Python are held to the same ones: `jsonargparse` checks the first
two by the types alone, and a configuration made in Python asks it in `__post_init__`.
"""

import dataclasses
import functools
import math

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import (
    ClosedUnitInterval,
    NotEmptyStr,
    restricted_number_type,
    restricted_string_type,
)

from compensation.streaming import HIGHEST_EXPONENT

__all__ = ["ClosedUnitInterval", "NotEmptyStr"]


def _number(name: str, base: type, *bounds: tuple[str, float]) -> type:
    """A type of numbers; processes that are sent one find it in this module."""
    kind = restricted_number_type(name, base, list(bounds))
    kind.__module__ = __name__
    return kind


AnimalName = restricted_string_type("AnimalName", "^[A-Za-z0-9][A-Za-z0-9_-]*$")
"""Of an animal of a cohort, which is a folder's too."""
AnimalName.__module__ = __name__

Count = _number("Count", int, (">=", 1), ("<=", 10**9))
"""How many, at least one. More than 10⁹ is a typing error and fits no memory."""

CountOrZero = _number("CountOrZero", int, (">=", 0), ("<=", 10**9))
"""How many, perhaps none."""

Seed = _number("Seed", int, (">=", 0), ("<", 2**31))
"""Of generators: numpy takes none below zero."""

Port = _number("Port", int, (">=", 1), ("<=", 65535))
"""Of TCP."""

Positive = _number("Positive", float, (">", 0), ("<", math.inf))
"""A finite number above zero."""

NotNegative = _number("NotNegative", float, (">=", 0), ("<", math.inf))
"""A finite number from zero on."""

AtLeastOne = _number("AtLeastOne", float, (">=", 1), ("<", math.inf))
"""A ratio to the best or to a fair share."""

Correlation = _number("Correlation", float, (">=", -1), ("<=", 1))
"""Of two responses."""

Seconds = _number("Seconds", float, (">", 0), ("<=", 10**7))
"""A duration [s]; four months are more than any recording."""

SecondsOrZero = _number("SecondsOrZero", float, (">=", 0), ("<=", 10**7))
"""A duration [s] that may be none."""

Hours = _number("Hours", float, (">", 0), ("<=", 10**4))
"""A duration [h]."""

LevelDbSpl = _number("LevelDbSpl", float, (">=", -20), ("<=", 130))
"""RMS level of a sound [dB SPL], from what no ear hears to what hurts."""

FullScaleDbSpl = _number("FullScaleDbSpl", float, (">=", 40), ("<=", 180))
"""Level of a sound whose RMS is 1 [dB SPL]; it is 94 where samples are pascals."""

UnitDbSpl = _number("UnitDbSpl", float, (">=", -120), ("<=", 180))
"""Level of a sound whose RMS is 1 in the unit of a recording [dB SPL]: 94 for pascals, 34 for
millipascals, -26 for micropascals, less for steps of a converter."""

MaximumDbSpl = _number("MaximumDbSpl", float, (">=", 50), ("<=", 160))
"""Highest magnitude that leaves an aid [dB SPL]: below, speech is cut to pieces."""

RatioDb = _number("RatioDb", float, (">=", -100), ("<=", 100))
"""Signal-to-noise ratio [dB]."""

Exponent = _number("Exponent", float, (">=", 0), ("<=", HIGHEST_EXPONENT))
"""Of an aid's mask: 0 off, 1 as trained."""


def checked(config) -> None:
    """Compare every field of a configuration with its type, those of nested ones included.

    Args:
        config: Any dataclass whose fields `jsonargparse` understands; as its `__post_init__`, no
            configuration out of range can be made.

    Raises:
        ValueError: If a value is of another type or out of range; the message names field, value
            and range.
    """
    try:
        _parser(type(config)).parse_object(dataclasses.asdict(config))
    except ArgumentError as error:
        message = " ".join(str(error).split()).removeprefix("Parser key ")
        raise ValueError(message) from None


@functools.cache
def _parser(config_class: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class)
    return parser
