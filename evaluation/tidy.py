"""One tidy table of results, a row a number, and what it says: means, differences, shares.

A row is of one listener who heard one sound by one device (or whose responses one network
predicted): columns `seed`, `listener`, `sound`, `measure`, `value`, and whatever else tells rows
apart. Of restoration the `value` is the discrepancy with the device and `unaided` that without it,
and numbers are pooled over sounds (`evaluation.neural`); of any other measure `unaided` is missing,
and they are means. What is said of several listeners has its interval over seeds, listeners and
sounds (`evaluation.comparison`).
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from evaluation.comparison import Comparison, Resampled, resample

COLUMNS = (
    *("seed", "listener", "group", "device", "judge", "condition", "level_db_spl", "noise"),
    *("sound", "measure", "value", "unaided"),
)
"""Of a table about devices. `judge` is truth or model of restoration, and empty for what sounds
alone say."""

NUMBERS = ("seed", "level_db_spl", "value", "unaided")
"""Those of them that are numbers."""

OTHERS = ("excerpt", "role", "way", "kind")
"""Further columns of texts: which of several excerpts of a sound; and, of tables about networks,
whether a network was trained on the listener, how it was fitted to one that it was not trained on,
and the class of the sound."""

PLACE = ("seed", "listener", "sound", "level_db_spl", "noise", "condition", "excerpt")
"""What tells the sounds of a comparison apart; not every table has all of it."""

POOLED = "pooled"
"""Sound of rows that are sums over sounds."""


def table(by_device: Mapping[str, Tensor | tuple[Tensor, Tensor]], **columns: Any) -> pd.DataFrame:
    """A row for each device and sound.

    Args:
        by_device: Values `(B,)`, or discrepancies with the device and without, `(B,)` each.
        columns: Others: one value for all, or B.
    """
    tables = []
    for device, values in by_device.items():
        value, unaided = values if isinstance(values, tuple) else (values, None)
        numbers = {
            "value": value.double().numpy(),
            "unaided": np.nan if unaided is None else unaided.double().numpy(),
        }
        tables.append(pd.DataFrame({"device": device, **columns, **numbers}))
    return pd.concat(tables, ignore_index=True)


def facts(device: str, values: Mapping[str, float], condition: str) -> pd.DataFrame:
    """Numbers of a device that are of no sound, by measure."""
    rows = [{"measure": name, "value": float(value)} for name, value in values.items()]
    return pd.DataFrame(rows, columns=["measure", "value"]).assign(
        device=device, condition=condition
    )


def complete(
    tables: Sequence[pd.DataFrame], columns: Sequence[str] = COLUMNS, **values: Any
) -> pd.DataFrame:
    """Tables as one with all columns, without the rows that have no value.

    Args:
        tables: Some of the columns each.
        columns: All of them, in their order.
        values: Of columns that are alike in all rows.
    """
    rows = pd.concat(tables, ignore_index=True).dropna(subset="value").assign(**values)
    for column in columns:
        empty = np.nan if column in NUMBERS else ""
        rows[column] = rows[column].fillna(empty) if column in rows else empty
    return rows[[column for column in columns if column != "seed" or "seed" in values]]


def read(file: str | Path | io.BytesIO) -> pd.DataFrame:
    """Rows from CSV, compressed or not.

    Raises:
        ValueError: If there is no such file.
    """
    if not isinstance(file, io.BytesIO) and not Path(file).is_file():
        raise ValueError(f"{file}: no such file; correct the path, or make it again")
    # "NaN" and the like are names like any other.
    empty = {name: [""] for name in NUMBERS}
    texts = {name: str for name in (*COLUMNS, *OTHERS) if name not in NUMBERS}
    return pd.read_csv(file, dtype=texts, keep_default_na=False, na_values=empty)


def where(rows: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """Rows whose columns have a value, or one of several; None asks for nothing.

    >>> where(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), a=[2, 3], b=None).b.tolist()
    ['y']
    """
    for column, wanted in columns.items():
        if wanted is not None:
            one = isinstance(wanted, str) or not isinstance(wanted, Sequence)
            rows = rows[rows[column] == wanted] if one else rows[rows[column].isin(wanted)]
    return rows


def shared(rows: pd.DataFrame, by: str = "device") -> list[str]:
    """Names of a column of which every listener of these rows has a value, in order of rows."""
    listeners = rows.groupby(by, sort=False).listener.nunique()
    return listeners[listeners == rows.listener.nunique()].index.tolist()


def sample(rows: pd.DataFrame, names: Sequence[str], by: str = "device") -> Resampled | None:
    """Values of listeners by some names of a column, as they are and drawn again.

    Places that any of the names lacks are left out for all. None if a name was not measured.

    Args:
        rows: Of one measure.
        names: D of them.
        by: The column.
    """
    chosen = where(rows, **{by: list(names)})
    if not set(names) <= set(chosen[by]):
        return None
    place = [column for column in PLACE if column in chosen and column != by]
    chosen = chosen.assign(unaided=chosen.get("unaided", np.nan))
    wide = chosen.pivot(index=place, columns=by, values=["value", "unaided"])
    values, totals = (
        torch.tensor([wide[column][name].tolist() for name in names]).double()
        for column in ("value", "unaided")
    )
    pooled = bool(totals.isfinite().any())
    amounts = totals - values if pooled else values
    totals = totals if pooled else torch.ones_like(values)
    measured = (amounts.isfinite() & totals.isfinite()).all(0)
    if not bool(measured.any()):
        return None
    index = wide.index.to_frame(index=False)[measured.numpy()]
    sounds = None if set(index.sound) == {POOLED} else index.sound.tolist()
    return resample(
        amounts[:, measured],
        totals[:, measured],
        index.seed.tolist() if "seed" in index else [0] * len(index),
        index.listener.tolist(),
        sounds,
    )


def mean(rows: pd.DataFrame, name: str) -> Comparison | None:
    """Mean over listeners with a device; None if it was not measured."""
    draws = sample(rows, [name])
    return None if draws is None else draws.comparison(draws.mean()[:, 0], bound=None)


def difference(
    rows: pd.DataFrame, name: str, other: str, by: str = "device", bound: float = 0.0
) -> Comparison | None:
    """By how much a device has more than another on the same sounds, mean over listeners.

    Args:
        rows: Of one measure.
        name: Of the first.
        other: Of the second.
        by: The column of names.
        bound: What the difference is held against.
    """
    draws = sample(rows, [name, other], by)
    if draws is None:
        return None
    ours, others = draws.mean().T
    return draws.comparison(ours - others, bound)


def ratio(rows: pd.DataFrame, name: str, other: str, by: str, bound: float) -> Comparison | None:
    """Mean of some listeners over that of others who heard the same sounds.

    Args:
        rows: Of one device and measure; a value of each sound and listener.
        name: Of the first in the column `by`.
        other: Of the others.
        by: A column that tells listeners apart.
        bound: What is wanted of it.

    Returns:
        None where either has no value, or the others' mean is not above zero, of which no share
        means anything.
    """
    rows = where(rows, **{by: [name, other]})
    if rows[by].nunique() < 2:
        return None
    keys = [rows[column].tolist() for column in ("seed", "listener", "sound")]
    values = torch.tensor([rows.value.tolist()])
    draws = resample(values, torch.ones(len(rows)), *keys)
    first = rows.drop_duplicates(["seed", "listener"])[by].eq(name).tolist()
    ours, others = (
        dataclasses.replace(
            draws, values=draws.values[..., which], weights=draws.weights[:, which]
        ).mean()[:, 0]
        for which in (torch.tensor(first), ~torch.tensor(first))
    )
    return draws.comparison(ours / others, bound) if others[0] > 0 else None


@dataclasses.dataclass(frozen=True)
class Spread:
    """The middle of some values and how far they lie from it."""

    median: float
    mad: float
    """Median of their distances to the median."""
    n: int


def spread(
    rows: pd.DataFrame, name: str, less: str | None = None, by: str = "device"
) -> Spread | None:
    """Median and MAD over all rows of a device, or of what it has more than another, row by row.

    None where there is no value.
    """
    place = [column for column in PLACE if column in rows and column != by]
    values = where(rows, **{by: name}).set_index(place).value
    if less is not None:
        values = (values - where(rows, **{by: less}).set_index(place).value).dropna()
    if values.empty:
        return None
    middle = values.median()
    return Spread(middle, (values - middle).abs().median(), len(values))


def share(rows: pd.DataFrame, name: str, of: str, bound: float | None = None) -> Comparison | None:
    """Which share of another device's mean a device reaches, held against what is wanted."""
    draws = sample(rows, [name, of])
    if draws is None:
        return None
    ours, others = draws.mean().T
    return draws.comparison(ours / others, bound)


def gap(
    rows: pd.DataFrame, device: str, of: str, less: str
) -> dict[str, Comparison | float] | None:
    """How far one judge's numbers of a device lie from another's, listener by listener.

    Returns:
        The `mean`, in which errors of either sign cancel, the mean of `magnitude`s, and the
        `largest` magnitude; None where one of the two judged nothing.
    """
    draws = sample(where(rows, device=device), [of, less], by="judge")
    if draws is None:
        return None
    apart = dataclasses.replace(draws, values=draws.values[:, :1] - draws.values[:, 1:])
    return {
        "mean": apart.comparison(apart.mean()[:, 0], bound=None),
        "magnitude": apart.comparison(apart.mean_magnitude()[:, 0], bound=None),
        "largest": apart.values[0, 0].abs().max().item(),
    }
