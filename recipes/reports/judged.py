"""What `recipes.judge` writes: tables and figures of its tidy table, with every measure named."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from evaluation import tidy
from evaluation.comparison import Comparison
from evaluation.tidy import difference, gap, mean, shared, where
from icsim.excerpts import NOISE, QUIET
from icsim.files import write_json, write_whole
from recipes.reports import figures
from recipes.reports.page import png
from recipes.reports.tables import Cell, Table, counted, grid, headline

MEASURES = {
    "fidelity_quiet": {"measure": "fidelity", "condition": QUIET},
    "fidelity_noise": {"measure": "fidelity", "condition": NOISE},
    "clarity_noise": {"measure": "clarity", "condition": NOISE},
}
"""Restorations by what the normal ear hears: the same sound, or the clean speech in it. In quiet,
clarity is fidelity."""

JUDGES = {"truth": "the true midbrains", "model": "the model's own opinion"}

ADDED = {
    f"dB added in {name}": {"measure": "added_db", "condition": name} for name in (QUIET, NOISE)
}
"""What a device adds to the level: neither good nor bad."""


def with_a_loss(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of listeners with a loss: who hears normally has nothing to be restored, and counts
    only where nobody has a loss."""
    impaired = where(rows, group="HI")
    return rows if impaired.empty else impaired


def mean_of(part: pd.DataFrame, device: object) -> Comparison | None:
    """Mean of a device that every listener of these rows has."""
    return mean(part, str(device)) if device in shared(part) else None


def tables(rows: pd.DataFrame, about: Mapping) -> list[Table]:
    """Restoration and level, our settings less other devices, the model's error, scores.

    Args:
        rows: Of all listeners.
        about: What `recipes.judge` says of them.
    """
    rows = with_a_loss(rows)
    every = [restoration(rows, about)]
    every += [less(rows, about, ours) for ours in about["ours"]]
    every += [gaps(rows, about), scores(rows, about)]
    return [table for table in every if table.rows]


def restoration(rows: pd.DataFrame, about: Mapping) -> Table:
    """Of every device, by each judge, and what it adds to the level."""
    there = restorations(rows)
    columns = {
        f"{name.replace('_', ' in ')}, by {JUDGES[judge]}": there[name] | {"judge": judge}
        for judge in about["judges"]
        for name in there
    }
    conditions = set(rows.condition)
    columns |= {name: part for name, part in ADDED.items() if part["condition"] in conditions}

    def cell(part: pd.DataFrame, device: object) -> Cell:
        restored = mean_of(part, device)
        return restored and restored.estimate if set(part.measure) == {"added_db"} else restored

    people = rows.listener.nunique()
    lost = f"{people} with a loss" if "HI" in set(rows.group) else f"{people}, none with a loss"
    text = f"Listeners: {lost}. Means over listeners, of this one aid, model and cohort."
    table = grid("Restoration", text, rows, about["devices"], columns, cell, _label(about))
    delays = {one["label"]: f"{one['delay_ms']:.1f}" for one in about["devices"].values()}
    lines: list[list[Cell]] = [[row[0], delays[str(row[0])], *row[1:]] for row in table.rows]
    header = ["device", "delay [ms]", *table.header[1:]]
    return Table(table.title, table.about, header, lines)


def less(rows: pd.DataFrame, about: Mapping, ours: str) -> Table:
    """One device less every other, by the first judge and by scores."""
    columns = {
        name.replace("_", " in "): part | {"judge": about["judges"][0]}
        for name, part in restorations(rows).items()
    } | _scores(rows)

    def cell(part: pd.DataFrame, other: object) -> Comparison | None:
        both = {ours, other} <= set(shared(part))
        return difference(part, ours, str(other)) if both else None

    others = [name for name in about["devices"] if name not in about["ours"]]
    label = about["devices"][ours]["label"]
    text = "Differences, means over listeners."
    return grid(f"{label}, less", text, rows, others, columns, cell, _label(about), digits=3)


def gaps(rows: pd.DataFrame, about: Mapping) -> Table:
    """How far the model's opinion of our devices is off, listener by listener."""
    listeners = list(dict.fromkeys(rows.listener))
    lines: list[list[Cell]] = []
    for device in about["ours"]:
        for name, wanted in restorations(rows).items():
            part = where(rows, **wanted)
            apart = gap(part, device, "model", "truth")
            if apart is None:
                continue
            alone = [gap(where(part, listener=one), device, "model", "truth") for one in listeners]
            label = f"{about['devices'][device]['label']}, {name.replace('_', ' in ')}"
            cells: list[Cell] = [label, apart["magnitude"], apart["largest"]]
            cells += [
                one["mean"].estimate if one and isinstance(one["mean"], Comparison) else None
                for one in alone
            ]
            lines.append(cells)
    header = ["", "mean of magnitudes", "largest", *listeners]
    return counted(Table("The model's opinion less the truth", "In restoration.", header, lines))


def scores(rows: pd.DataFrame, about: Mapping) -> Table:
    """Scores of noisy speech after each device."""
    why = [f"{name} is missing of some: {reason}." for name, reason in about["missing"].items()]
    text = " ".join(["Of noisy speech after each device.", *why])
    return grid(
        "Scores", text, rows, about["devices"], _scores(rows), mean_of, _label(about), digits=3
    )


def restorations(rows: pd.DataFrame) -> dict[str, dict]:
    """Those of `MEASURES` that were measured."""
    return {name: part for name, part in MEASURES.items() if len(where(rows, **part))}


def _scores(rows: pd.DataFrame) -> dict[str, dict]:
    names = dict.fromkeys(where(rows, condition=NOISE, judge="").measure)
    return {name: {"measure": name, "condition": NOISE} for name in names if name != "added_db"}


def _label(about: Mapping):
    return lambda device: about["devices"][device]["label"]


def report(rows: pd.DataFrame, about: Mapping) -> str:
    """All tables as Markdown."""
    without = [f"Without {what}: {reason}.\n" for what, reason in about["left_out"].items()]
    return "\n".join([*(table.markdown() for table in tables(rows, about)), *without])


def headlines(rows: pd.DataFrame, about: Mapping) -> dict[str, float]:
    """Restoration by each judge and scores, `<judge>/<device>/<measure>`, and our settings less
    every other device, `<ours>-<device>/<measure>`."""
    rows = with_a_loss(rows)
    numbers: dict[str, Cell] = {}
    for judge in about["judges"]:
        for name, wanted in restorations(rows).items():
            part = where(rows, judge=judge, **wanted)
            numbers |= {f"{judge}/{d}/{name}": mean_of(part, d) for d in about["devices"]}
            if judge != about["judges"][0]:
                continue
            for ours in about["ours"]:
                for other in [name for name in shared(part) if name not in about["ours"]]:
                    numbers[f"{ours}-{other}/{name}"] = difference(part, ours, other)
    for name, wanted in _scores(rows).items():
        part = where(rows, **wanted)
        numbers |= {f"{device}/{name}": mean_of(part, device) for device in about["devices"]}
    return headline(numbers)


def read(folder: Path) -> tuple[pd.DataFrame, dict]:
    """Rows of a finished judgement, and what is said of them."""
    return tidy.read(folder / "results.csv"), json.loads((folder / "judged.json").read_text())


def estimates(rows: pd.DataFrame, about: Mapping) -> dict[str, dict[str, dict[str, float]]]:
    """Restoration by judge, measure and device."""
    rows = with_a_loss(rows)
    return {
        judge: {
            name: {
                device: one.estimate
                for device in about["devices"]
                if (one := mean_of(where(rows, judge=judge, **wanted), device))
            }
            for name, wanted in restorations(rows).items()
        }
        for judge in about["judges"]
    }


def draw(rows: pd.DataFrame, about: Mapping, judge: str, measures: Sequence[str]) -> Figure:
    """Bars of restoration by one judge, with intervals."""
    cells = {
        name.replace("_", " in "): {
            one["label"]: mean_of(where(rows, judge=judge, **MEASURES[name]), device)
            for device, one in about["devices"].items()
        }
        for name in measures
    }
    return figures.interval_bars(cells, f"restoration by {JUDGES[judge]}")


def write(out: Path, rows: pd.DataFrame, about: Mapping) -> None:
    """Tables and figures first; `judged.json` says that they are whole."""
    write_whole(out / "results.csv", rows.to_csv(index=False, float_format="%.6g"))
    write_whole(out / "scores.md", report(rows, about))
    write_json(out / "headline.json", headlines(rows, about))
    for judge in about["judges"]:
        drawn = draw(with_a_loss(rows), about, judge, list(restorations(rows)))
        write_whole(out / f"restoration-{judge}.png", png(drawn))
    write_json(out / "judged.json", about)
