"""The figures of a finished demo: for programs, and as the tables of a README."""

import functools
import statistics
from collections.abc import Callable, Sequence

import pandas as pd

from evaluation.comparison import Comparison
from evaluation.tidy import difference, where
from icsim.excerpts import NOISE, QUIET
from recipes.reports import judged
from recipes.reports.tables import Cell, Table, markdown, number

COLUMNS = {
    "fidelity in quiet": (
        {"judge": "truth", "measure": "fidelity", "condition": QUIET},
        "masks_nr_off",
    ),
    "clarity in noise": (
        {"judge": "truth", "measure": "clarity", "condition": NOISE},
        "masks_nr_on",
    ),
    "ESTOI": ({"measure": "estoi"}, "masks_nr_on"),
    "HASPI": ({"measure": "haspi"}, "masks_nr_on"),
}
"""What is measured, and the setting of our aid that is made for it."""

GROUPS = {
    "seen_nh": [("seen", "NH")],
    "seen_hi": [("seen", "HI")],
    "unseen": [("unseen", "NH"), ("unseen", "HI")],
}
"""Animals whose FEVE is said together: role and status."""


def key_figures(done: dict) -> dict:
    """How well the model predicts and the fits went, from the stages; None where unknown."""
    predicted = done["prediction"]["result"].values()
    fits = [stage["result"] for name, stage in done.items() if name.startswith("fit of")]
    of_animals = {
        group: [
            score["feve"]
            for score in predicted
            if (score["role"], score["status"]) in kinds and score["feve"] is not None
        ]
        for group, kinds in GROUPS.items()
    }
    return {
        "feve": {group: _median(values) for group, values in of_animals.items()},
        "feve_of_animals": of_animals,
        "fit": {
            "evaluations": _median([f["evaluations_to_target"] or f["evaluations"] for f in fits]),
            "loss_ratio": max(fit["loss_ratio"] for fit in fits),
        },
    }


def results(done: dict, rows: pd.DataFrame, about: dict) -> str:
    """Two Markdown tables: key figures, and devices compared on the true midbrains.

    Args:
        done: Stages of a demo.
        rows: Of its judgement.
        about: What the judgement says of them.
    """
    figures = key_figures(done)
    nh, hi, unseen = (
        f"{number(figures['feve'][group], 2)} ({reach(values)})"
        for group, values in figures["feve_of_animals"].items()
    )
    fit = figures["fit"]
    lines = [
        ["", "median (least to most)"],
        ["FEVE of test sounds, seen animals with normal hearing", nh],
        ["… with a loss", hi],
        ["… of unseen animals, with fitted θ and gains of channels", unseen],
        ["evaluations until θ costs at most 1.02 of the best", number(fit["evaluations"], 0)],
        ["cost of the search, of the best (worst animal)", number(fit["loss_ratio"], 3)],
    ]
    return f"{markdown(lines, '---:')}\n\n{devices(rows, about).cells()}\n"


def devices(rows: pd.DataFrame, about: dict) -> Table:
    """Restoration and scores of each device, and our aid's difference from it."""
    rows = judged.with_a_loss(rows)
    columns = {name: part for name, part in judged.ADDED.items() if len(where(rows, **part))}
    cells: dict[str, Callable[[pd.DataFrame, str], Cell]]
    cells = dict.fromkeys(columns, level_cell)
    for name, (wanted, ours) in COLUMNS.items():
        if len(where(rows, **wanted)):
            less = f"{about['devices'][ours]['label']}, less it"
            columns |= {name: wanted, f"{less} ({name})": wanted}
            cells |= {name: judged.mean_of, f"{less} ({name})": functools.partial(than, ours)}
    lines: list[list[Cell]] = [
        [one["label"]]
        + [cells[name](where(rows, **part), device) for name, part in columns.items()]
        for device, one in about["devices"].items()
    ]
    return Table("Devices", "", ["device", *columns], lines)


def level_cell(part: pd.DataFrame, device: str) -> str | None:
    """What a device adds [dB]."""
    added = judged.mean_of(part, device)
    return number(added.estimate, 1) if added else None


def than(ours: str, part: pd.DataFrame, device: str) -> Comparison | None:
    """Our aid less another device."""
    return difference(part, ours, device) if not device.startswith("masks") else None


def reach(values: Sequence[float]) -> str:
    """Least and most of some animals' values.

    >>> reach([0.25, 0.5]), reach([])
    ('0.25 to 0.50, n = 2', 'n = 0')
    """
    count = f"n = {len(values)}"
    return f"{number(min(values), 2)} to {number(max(values), 2)}, {count}" if values else count


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
