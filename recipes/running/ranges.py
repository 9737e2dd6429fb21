"""Ranges of values as types, for the fields of configurations.

A command line, a YAML file and Python are held to the same ones: `jsonargparse` checks the first
two by the types alone, and one made in Python is `checked` against them.
"""

import dataclasses
import functools
import math
import typing

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import (
    ClosedUnitInterval,
    NotEmptyStr,
    restricted_number_type,
    restricted_string_type,
)

from compensation.streaming import HIGHEST_EXPONENT

__all__ = ["ClosedUnitInterval", "NotEmptyStr"]

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = typing.TypeVar("C")


AnimalName = restricted_string_type("AnimalName", "^[A-Za-z0-9][A-Za-z0-9_-]*$")
"""Of an animal of a cohort, which is a folder's too."""

Count = restricted_number_type("Count", int, [(">=", 1), ("<=", 10**9)])
"""How many, at least one. More than 10⁹ is a typing error and fits no memory."""

CountOrZero = restricted_number_type("CountOrZero", int, [(">=", 0), ("<=", 10**9)])
"""How many, perhaps none."""

Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**31)])
"""Of generators: numpy takes none below zero."""

Port = restricted_number_type("Port", int, [(">=", 1), ("<=", 65535)])
"""Of TCP."""

Positive = restricted_number_type("Positive", float, [(">", 0), ("<", math.inf)])
"""A finite number above zero."""

NotNegative = restricted_number_type("NotNegative", float, [(">=", 0), ("<", math.inf)])
"""A finite number from zero on."""

AtLeastOne = restricted_number_type("AtLeastOne", float, [(">=", 1), ("<", math.inf)])
"""A ratio to the best or to a fair share."""

Correlation = restricted_number_type("Correlation", float, [(">=", -1), ("<=", 1)])
"""Of two responses."""

Seconds = restricted_number_type("Seconds", float, [(">", 0), ("<=", 10**7)])
"""A duration [s]; four months are more than any recording."""

SecondsOrZero = restricted_number_type("SecondsOrZero", float, [(">=", 0), ("<=", 10**7)])
"""A duration [s] that may be none."""

Hours = restricted_number_type("Hours", float, [(">", 0), ("<=", 10**4)])
"""A duration [h]."""

LevelDbSpl = restricted_number_type("LevelDbSpl", float, [(">=", -20), ("<=", 130)])
"""RMS level of a sound [dB SPL], from what no ear hears to what hurts."""

FullScaleDbSpl = restricted_number_type("FullScaleDbSpl", float, [(">=", 40), ("<=", 180)])
"""Level of a sound whose RMS is 1 [dB SPL]; it is 94 where samples are pascals."""

UnitDbSpl = restricted_number_type("UnitDbSpl", float, [(">=", -120), ("<=", 180)])
"""Level of a sound whose RMS is 1 in the unit of a recording [dB SPL]: 94 for pascals, 34 for
millipascals, -26 for micropascals, less for steps of a converter."""

MaximumDbSpl = restricted_number_type("MaximumDbSpl", float, [(">=", 50), ("<=", 160)])
"""Highest magnitude that leaves an aid [dB SPL]: below, speech is cut to pieces."""

RatioDb = restricted_number_type("RatioDb", float, [(">=", -100), ("<=", 100)])
"""Signal-to-noise ratio [dB]."""

Exponent = restricted_number_type("Exponent", float, [(">=", 0), ("<=", HIGHEST_EXPONENT)])
"""Of an aid's mask: 0 off, 1 as trained."""


def checked(config_class: type[C]) -> type[C]:
    """Have every instance of a configuration compared with its types, before `dataclass` does.

    So no configuration out of range can be made, in Python either. Numbers and words are plain
    ones afterwards, whatever a parser made of them: not every library takes a subclass for what it
    is.

    Args:
        config_class: A frozen dataclass to be, whose fields `jsonargparse` understands. Making an
            instance raises ValueError if a value is of another type or out of range; the message
            names field, value and range.
    """
    config_class.__post_init__ = _compare  # type: ignore[attr-defined]  # for `dataclass`
    return config_class


def _compare(config: "DataclassInstance") -> None:
    """Compare every field with its type, those of nested configurations included."""
    hints = typing.get_type_hints(type(config))
    for name, hint in hints.items():
        value = getattr(config, name)
        if value is None and type(None) not in typing.get_args(hint):
            raise ValueError(f'"{name}": a value is needed, got null')
        object.__setattr__(config, name, _plain(value))
    try:
        _parser(type(config)).parse_object(dataclasses.asdict(config))
    except ArgumentError as error:
        message = " ".join(str(error).split()).removeprefix("Parser key ")
        raise ValueError(message) from None


def _plain(value):
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return next(kind for kind in (int, float, str) if isinstance(value, kind))(value)
    return value


@functools.cache
def _parser(config_class: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class)
    return parser
