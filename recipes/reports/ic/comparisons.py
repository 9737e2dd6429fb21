"""Networks and fits compared sound by sound, with intervals and verdicts.

Every comparison is a mean over animals of the mean over their sounds, where medians are what tables
show of single networks. Its interval is over seeds, animals and sounds (`evaluation.comparison`).
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import torch

from evaluation.comparison import resample
from recipes.reports.ic.results import Rows, Run

MEASURES = {"feve": 1, "kl": -1}
"""Scores of rows, and whether more of them is better or worse."""


def compared(
    runs: Sequence[Run],
    animals: Iterable[str],
    rows: Rows,
    than: Rows,
    group: str | None = None,
    measure: str = "feve",
    bound: float = 0.0,
) -> dict | None:
    """How much better some rows are than others of the same sounds; None where there are none.

    Args:
        runs: Seeds.
        animals: Their names.
        rows: What is asked for.
        than: What it is compared with.
        group: Of `results.GROUPS`, if animals of others are to be left out.
        measure: feve, of which more is better, or kl, of which less is.
        bound: What the difference is held against.
    """
    keys, pairs = [], []
    for run, name in itertools.product(runs, animals):
        if group not in (None, run.groups[name]):
            continue
        for one, other in zip(rows(run, name), than(run, name), strict=True):
            if one[measure] is not None and other[measure] is not None:
                keys.append((run.seed, name, one["sound"]))
                pairs.append((one[measure], other[measure]))
    if not keys:
        return None
    draws = resample(torch.tensor(pairs).T, torch.ones(len(keys)), *zip(*keys, strict=True))
    ours, others = draws.mean().T
    return draws.comparison(MEASURES[measure] * (ours - others), bound).to_json()


def ratio(
    runs: Sequence[Run],
    animals: Sequence[str],
    rows: Rows,
    to_animals: Sequence[str],
    to_rows: Rows,
    bound: float,
) -> dict | None:
    """Mean FEVE of some animals over that of others, who heard the same sounds.

    Args:
        runs: Seeds.
        animals: Names of some.
        rows: Theirs.
        to_animals: Names of the others.
        to_rows: Theirs.
        bound: The share that is wanted.

    Returns:
        None where somebody has no value, or the others' mean is not above zero.
    """
    keys, values = [], []
    for names, found in ((animals, rows), (to_animals, to_rows)):
        for run, name in itertools.product(runs, names):
            for row in found(run, name):
                if row["feve"] is not None:
                    keys.append((run.seed, name, row["sound"]))
                    values.append(row["feve"])
    if len({name in animals for _, name, _ in keys}) < 2:
        return None
    draws = resample(torch.tensor([values]), torch.ones(len(keys)), *zip(*keys, strict=True))
    people = dict.fromkeys((seed, name) for seed, name, _ in keys)
    some = torch.tensor([name in animals for _, name in people])
    mine, others = (
        dataclasses.replace(
            draws, values=draws.values[..., which], weights=draws.weights[:, which]
        ).mean()[:, 0]
        for which in (some, ~some)
    )
    # Where the others are not explained, a share of it means nothing.
    return draws.comparison(mine / others, bound).to_json() if others[0] > 0 else None
