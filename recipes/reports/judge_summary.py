"""What the rows of a judgement say: means with intervals, comparisons, the model's error.

A row is one device on one excerpt for one listener: `listener`, `judge` (empty for scores, which
no midbrain gives), `measure`, `device`, `excerpt`, `source` (whose or what its sound is), and
either `aided` and `unaided` (discrepancies) or `value`, None if missing. Listeners and sources are
drawn again for the intervals: two excerpts of one voice are no two voices.
"""

import collections
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from evaluation.comparison import Comparison, Resampled, resample

Row = dict[str, str | float | int | None]

ALL = "all with a loss"
"""Listeners together; whoever hears normally has nothing to be restored, and counts only where
nobody has a loss."""


def groups(statuses: Mapping[str, str]) -> dict[str, list[str]]:
    """Names of the listeners of which something is said: all with a loss, and each alone.

    Args:
        statuses: NH or HI, by listener.

    >>> groups({"a": "NH", "b": "HI"})
    {'all with a loss': ['b'], 'a': ['a'], 'b': ['b']}
    """
    impaired = [name for name, status in statuses.items() if status != "NH"]
    return {ALL: impaired or list(statuses)} | {name: [name] for name in statuses}


def means(rows: Sequence[Row], statuses: Mapping[str, str]) -> list[Row]:
    """Of every judge, measure and device, by group: pooled restoration, or the mean of a score.

    A device that some listener of a group lacks is left out there; of a mixed cohort the truth
    speaks of the simulated ones.

    Returns:
        Rows with `listener` (a group), `judge`, `measure`, `device`, `mean`, `low`, `high`,
        `listeners`, `sounds`, `files`, `missing`. Numbers are None where there is nothing to be
        restored.
    """
    found = []
    for group, listeners in groups(statuses).items():
        for judge, measure, own in _measured(rows, listeners):
            for device in _shared_devices(own, missing=True):
                of_device = [row for row in own if row["device"] == device]
                there = [row for row in of_device if _amount(row) is not None]
                numbers: Row = dict.fromkeys(("mean", "low", "high"))
                counts: Row = {"listeners": 0, "sounds": 0}
                if there:
                    draws = _resampled(there, [device])
                    said = draws.comparison(draws.mean()[:, 0])
                    numbers = _numbers(said, "mean")
                    counts = {"listeners": said.listeners, "sounds": said.sounds}
                labels = {"listener": group, "judge": judge, "measure": measure, "device": device}
                files = {"files": len(there), "missing": len(of_device) - len(there)}
                found.append(labels | numbers | counts | files)
    return found


def comparisons(
    rows: Sequence[Row],
    statuses: Mapping[str, str],
    ours: Sequence[str],
    neither: Collection[str] = (),
) -> list[Row]:
    """Each of our devices less every other one, on the excerpts that all of them have.

    Args:
        rows: See above.
        statuses: NH or HI, by listener.
        ours: Devices.
        neither: Measures of which more is neither better nor worse: they are left out.

    Returns:
        Rows with `listener` (a group), `judge`, `measure`, `device` (ours), `other`, `difference`,
        `low`, `high`, `listeners`, `sounds`, `verdict` (is ours better?).
    """
    found = []
    for group, listeners in groups(statuses).items():
        for judge, measure, own in _measured(rows, listeners):
            if measure in neither:
                continue
            devices = _shared_devices(own)
            draws = _resampled(own, devices)
            if draws is None:
                continue
            drawn = draws.mean()
            for device in [name for name in devices if name in ours]:
                for other in [name for name in devices if name not in ours]:
                    between = drawn[:, devices.index(device)] - drawn[:, devices.index(other)]
                    said = draws.comparison(between)
                    found.append(
                        {
                            "listener": group,
                            "judge": judge,
                            "measure": measure,
                            "device": device,
                            "other": other,
                            **_numbers(said, "difference"),
                            "listeners": said.listeners,
                            "sounds": said.sounds,
                            "verdict": said.verdict,
                        }
                    )
    return found


def gaps(rows: Sequence[Row], statuses: Mapping[str, str], devices: Collection[str]) -> list[Row]:
    """How much better the model thinks of devices than the true midbrains do, in restoration.

    Returns:
        Rows with `listener` (a group), `measure`, `device`, `gap`, `low`, `high`, `listeners`,
        `sounds`, `worst`. Of all listeners it is the mean of magnitudes, in which errors of either
        sign do not cancel, and `worst` is the largest.
    """
    judged = [row for row in rows if row["judge"] and row["device"] in devices]
    both = [{**row, "device": row["judge"], "of": row["device"]} for row in judged]
    found = []
    for group, listeners in groups(statuses).items():
        for measure in dict.fromkeys(row["measure"] for row in both):
            for device in dict.fromkeys(row["of"] for row in both):
                own = [
                    row
                    for row in both
                    if (row["measure"], row["of"]) == (measure, device)
                    and row["listener"] in listeners
                ]
                draws = _resampled(own, ["truth", "model"])
                if draws is None:
                    continue
                apart = draws.values[:, 1:] - draws.values[:, :1]
                if group == ALL:
                    apart = apart.abs()
                said = draws.comparison(dataclasses.replace(draws, values=apart).mean()[:, 0])
                found.append(
                    {"listener": group, "measure": measure, "device": device}
                    | _numbers(said, "gap")
                    | {"listeners": said.listeners, "sounds": said.sounds}
                    | {"worst": _finite(apart[0].abs().max().item())}
                )
    return found


def _measured(rows: Sequence[Row], listeners: Collection[str]) -> list[tuple[str, str, list[Row]]]:
    """Judge, measure and rows of whatever was measured of some listeners."""
    by_measure = collections.defaultdict(list)
    for row in rows:
        if row["listener"] in listeners:
            by_measure[row["judge"], row["measure"]].append(row)
    return [(*what, own) for what, own in by_measure.items()]


def _shared_devices(rows: Sequence[Row], missing: bool = False) -> list[str]:
    """Devices of which every listener of these rows has a value, or a row if that is enough."""
    by_device = collections.defaultdict(set)
    for row in rows:
        if missing or _amount(row) is not None:
            by_device[row["device"]].add(row["listener"])
    listeners = {row["listener"] for row in rows}
    return [device for device, have in by_device.items() if have == listeners]


def _resampled(rows: Sequence[Row], devices: Sequence[str]) -> Resampled | None:
    """Draws of some devices on the excerpts that all of them have; None if there are none."""
    by_place: dict = collections.defaultdict(dict)
    for row in rows:
        if row["device"] in devices and _amount(row) is not None:
            by_place[row["listener"], row["source"], row["excerpt"]][row["device"]] = row
    whole = {place: own for place, own in by_place.items() if len(own) == len(devices)}
    if not devices or not whole:
        return None

    def values(of) -> Tensor:
        return torch.tensor(
            [[of(own[device]) for own in whole.values()] for device in devices],
            dtype=torch.float64,
        )

    listeners, sources, _ = zip(*whole, strict=True)
    return resample(values(_amount), values(_total), [0] * len(whole), listeners, sources)


def _amount(row: Row) -> float | None:
    """What is summed over excerpts: what a device takes off a discrepancy, or a score."""
    return row["value"] if row["aided"] is None else row["unaided"] - row["aided"]


def _total(row: Row) -> float:
    """What the sum is divided by."""
    return 1.0 if row["aided"] is None else row["unaided"]


def _numbers(said: Comparison, name: str) -> Row:
    """Estimate and interval, in six digits."""
    values = {name: said.estimate, "low": said.low, "high": said.high}
    return {key: _finite(value) for key, value in values.items()}


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
