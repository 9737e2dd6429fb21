"""Tables and a figure of the benchmark of fitting by ear."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from compensation.preference import LEAST_ANSWERS, NEGLIGIBLE
from evaluation.comparison import Comparison, Resampled, resample
from evaluation.tidy import where
from icsim.files import write_json, write_whole
from recipes.reports.page import png
from recipes.reports.tables import Cell, Table, headline, number

NEAR = 0.05
"""Part of the best worth that may be missing where a search has arrived."""

LEASTS = (8, 12, 16, 20, 24, 30, 40)
"""Least numbers of answers that the stopping rule is tried with."""


def rows_of(method: str, parameters: int, listener: int, course: Mapping) -> pd.DataFrame:
    """A row a number: what is missing after each answer, and the gain that a method expects."""
    tables = [
        pd.DataFrame({"sound": range(1, 1 + len(values)), "measure": name, "value": values})
        for name, values in course.items()
    ]
    columns = {"device": method, "parameters": parameters, "listener": listener}
    return pd.concat(tables, ignore_index=True).assign(**columns)


def arrived(regret: Sequence[float]) -> int:
    """The answer from which on no more than `NEAR` is missing; one more than all if never.

    >>> arrived([0.2, 0.04, 0.1, 0.03, 0.02]), arrived([0.2, 0.1])
    (4, 3)
    """
    return max((n + 2 for n, missing in enumerate(regret) if missing > NEAR), default=1)


def stopped(gains: Sequence[float], least: int = LEAST_ANSWERS) -> int | None:
    """The answer after which a search ends by itself; None if it does not.

    >>> stopped([0.5, 3.0, 0.5], least=2), stopped([], least=2)
    (3, None)
    """
    enough = (n for n, gain in enumerate(gains, 1) if gain < NEGLIGIBLE)
    return next((n for n in enough if n >= least), None)


def courses(rows: pd.DataFrame, method: str, parameters: int) -> list[tuple[list, list]]:
    """What is missing, and the expected gains, of each listener, answer by answer."""
    part = where(rows, device=method, parameters=parameters)
    by_listener = [one for _, one in part.groupby("listener", sort=True)]
    regrets, gains = (
        [where(one, measure=name).value.tolist() for one in by_listener]
        for name in ("regret", "gain")
    )
    return list(zip(regrets, gains, strict=True))


def answers(rows: pd.DataFrame, methods: Sequence[str], parameters: int) -> Resampled:
    """Draws of the answers that each method needs, over the same listeners."""
    needed = [[arrived(one[0]) for one in courses(rows, name, parameters)] for name in methods]
    count = len(needed[0])
    return resample(torch.tensor(needed), torch.ones(count), [0] * count, range(count), None)


def median(values: Sequence[float]) -> float | None:
    """Of nothing, None."""
    return statistics.median(values) if values else None


def needed(rows: pd.DataFrame, about: Mapping) -> Table:
    """Answers until little is missing, by size of θ and method."""
    most, lines = about["at_most"], []

    def count(value: float) -> str:
        return f"> {most}" if value > most else number(value, 1)

    for parameters in about["parameters"]:
        draws = answers(rows, about["methods"], parameters)
        for place, method in enumerate(about["methods"]):
            one = draws.comparison(draws.median()[:, place], bound=None)
            each = courses(rows, method, parameters)
            ends = [(regret, stopped(gains)) for regret, gains in each]
            missing = [regret[stop - 1] for regret, stop in ends if stop]
            share = sum(arrived(regret) <= most for regret, _ in each) / len(each)
            interval = "–" if math.isnan(one.low) else f"{count(one.low)} to {count(one.high)}"
            after = median([stop for _, stop in ends if stop])
            cells = [count(one.estimate), interval, number(100 * share, 0), number(after, 1)]
            lines.append([str(parameters), method, *cells, number(median(missing), 3)])
    text = (
        f"Answers until at most {100 * NEAR:g} % of the best worth is missing, for good: median of "
        f"{about['listeners']} simulated listeners (seed {about['seed']}) and 95 % interval "
        f"over listeners. Worth: {about['utility']}."
    )
    header = ["P", "pairs", "answers", "interval", "arrived [%]", "stops after", "missing then"]
    return Table("Fitting by ear", text, header, lines)


def fewer(rows: pd.DataFrame, about: Mapping) -> Table:
    """The first method less every other: difference of medians, on the same listeners."""
    lines: list[list[Cell]] = []
    first, *others = about["methods"]
    for parameters in about["parameters"]:
        for other in others:
            one = saved(rows, about, other, parameters)
            lines.append([str(parameters), f"{first} than {other}", one, str(one.listeners)])
    text = (
        "By how much fewer answers the first asks: difference of the medians on the same "
        f"listeners, and 95 % interval; who has not arrived counts as {about['at_most'] + 1}."
    )
    return Table("Fewer answers", text, ["P", "fewer answers", "difference", "n"], lines, 1)


def saved(rows: pd.DataFrame, about: Mapping, other: str, parameters: int) -> Comparison:
    """Answers that another method needs more than the first, median."""
    draws = answers(rows, about["methods"], parameters)
    medians, place = draws.median(), about["methods"].index(other)
    return draws.comparison(medians[:, place] - medians[:, 0])


def stopping(rows: pd.DataFrame, about: Mapping) -> Table:
    """What is missing where searches end by themselves, by the least number of answers."""
    lines = []
    for parameters in about["parameters"]:
        for method in about["methods"]:
            each = courses(rows, method, parameters)
            for least in LEASTS:
                stops = [(regret, stopped(gains, least)) for regret, gains in each]
                ends = [(regret[stop - 1], stop) for regret, stop in stops if stop]
                if ends:
                    near = sum(missing <= NEAR for missing, _ in ends) / len(ends)
                    share, after = len(ends) / len(each), median([stop for _, stop in ends])
                    missing = median([one for one, _ in ends])
                    cells = [number(100 * share, 0), number(after, 1), number(missing, 3)]
                    lines.append([str(parameters), method, str(least), *cells])
                    lines[-1].append(number(100 * near, 0))
    text = (
        f"If it may not before some answers ({LEAST_ANSWERS} are asked). Medians of those that "
        f"end, and the share of them in which at most {NEAR:g} is missing."
    )
    header = ["P", "pairs", "at least", "ends [%]", "after", "missing then", "near enough [%]"]
    return Table("Where a search ends by itself", text, header, lines)


def tables(rows: pd.DataFrame, about: Mapping) -> list[Table]:
    """Answers needed, methods compared, and the stopping rule.

    Args:
        rows: Of `rows_of`.
        about: `methods`, sizes of θ as `parameters`, number of `listeners`, `seed`, answers
            `at_most`, and what `utility` was.
    """
    return [needed(rows, about), fewer(rows, about), stopping(rows, about)]


def headlines(rows: pd.DataFrame, about: Mapping) -> dict[str, float]:
    """Median answers `<P>/<method>/answers`, and `<P>/<first>-<other>/fewer`."""
    numbers: dict[str, Cell] = {}
    for parameters in about["parameters"]:
        draws = answers(rows, about["methods"], parameters)
        for place, method in enumerate(about["methods"]):
            one = draws.comparison(draws.median()[:, place], bound=None)
            numbers[f"{parameters}/{method}/answers"] = one
            if place:
                name = f"{parameters}/{about['methods'][0]}-{method}/fewer"
                numbers[name] = saved(rows, about, method, parameters)
    return headline(numbers)


def draw(rows: pd.DataFrame, about: Mapping) -> Figure:
    """What is missing after each answer, by method."""
    sizes = about["parameters"]
    figure = Figure(figsize=(6.0, 3.0 * len(sizes)), layout="constrained")
    axes = figure.subplots(len(sizes), 1, squeeze=False)[:, 0]
    for axis, parameters in zip(axes, sizes, strict=True):
        for method in about["methods"]:
            regret = [one[0] for one in courses(rows, method, parameters)]
            missing = np.maximum(np.median(regret, 0), 1e-4)
            axis.semilogy(range(1, 1 + len(missing)), missing, label=method)
        axis.axhline(NEAR, color="grey", linestyle=":")
        axis.set(xlabel="answers", ylabel="missing worth, median", title=f"P = {parameters}")
        axis.legend()
    return figure


def write(out: Path, rows: pd.DataFrame, about: Mapping) -> list[Table]:
    """Write `results.csv`, `headline.json`, `tables.md` and `regret.png`; returns the tables."""
    all_tables = tables(rows, about)
    write_whole(out / "results.csv", rows.to_csv(index=False, float_format="%.6g"))
    write_json(out / "headline.json", headlines(rows, about))
    write_whole(out / "tables.md", "\n".join(table.markdown() for table in all_tables))
    write_whole(out / "regret.png", png(draw(rows, about)))
    return all_tables
