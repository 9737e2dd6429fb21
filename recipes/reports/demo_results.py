"""The figures of a finished demo: for programs, and as the tables of a README."""

import statistics
from collections.abc import Sequence

from recipes.reports.judge_summary import ALL
from recipes.reports.judged import LEVELS, difference_cell, markdown, mean_cell
from recipes.reports.tables import NOTHING, number

COLUMNS = (
    ("truth", "fidelity_quiet", "fidelity in quiet", "masks_nr_off"),
    ("truth", "clarity_noise", "clarity in noise", "masks_nr_on"),
    ("", "estoi", "ESTOI", "masks_nr_on"),
    ("", "haspi", "HASPI", "masks_nr_on"),
)
"""Judge, measure, its name, and the setting of our aid that is made for it."""


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


def results(done: dict) -> str:
    """Two Markdown tables: key figures, and devices compared on the true midbrains."""
    found, judged = key_figures(done), done["judgement"]["result"]
    nh, hi, unseen = (
        f"{number(found['feve'][group], 2)} ({reach(values)})"
        for group, values in found["feve_of_animals"].items()
    )
    lines = [
        ["", "median (least to most)"],
        ["FEVE of test sounds, seen animals with normal hearing", nh],
        ["… with a loss", hi],
        ["… of unseen animals, with fitted θ and gains of channels", unseen],
        [
            "evaluations until θ costs at most 1.02 of the best",
            number(found["fit"]["evaluations"], 0),
        ],
        ["cost of the search, of the best (worst animal)", number(found["fit"]["loss_ratio"], 3)],
    ]
    return f"{markdown(lines)}\n{_devices(judged)}"


def _devices(judged: dict) -> str:
    """Restoration and scores of each device, and our aid's difference from it."""
    means = {
        (row["judge"], row["measure"], row["device"]): row
        for row in judged["means"]
        if row["listener"] == ALL
    }
    told = {
        (row["judge"], row["measure"], row["device"], row["other"]): row
        for row in judged["comparisons"]
        if row["listener"] == ALL
    }
    columns = [one for one in COLUMNS if any(key[:2] == one[:2] for key in means)]
    levels = [one for one in LEVELS if any(key[1] == one for key in means)]
    header = ["device", *(LEVELS[one] for one in levels)]
    for *_, label, ours in columns:
        header += [label, f"{judged['devices'][ours]['label']}, less it"]
    lines = [header]
    for device, about in judged["devices"].items():
        line = [about["label"]]
        line += [mean_cell(means["", level, device], 1, interval=False) for level in levels]
        for judge, measure, _, ours in columns:
            line.append(mean_cell(means.get((judge, measure, device)), 2))
            less = told.get((judge, measure, ours, device))
            line.append(difference_cell(less) if less else NOTHING)
        lines.append(line)
    return markdown(lines)


def reach(values: Sequence[float]) -> str:
    """Least and most of some animals' values.

    >>> reach([0.25, 0.5]), reach([])
    ('0.25 to 0.50, n = 2', 'n = 0')
    """
    count = f"n = {len(values)}"
    return f"{number(min(values), 2)} to {number(max(values), 2)}, {count}" if values else count


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
