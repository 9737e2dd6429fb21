"""What `recipes.judge` writes: tables and figures with every measure named."""

from collections.abc import Sequence
from pathlib import Path

from evaluation.table import write_csv
from icsim.files import write_json, write_whole
from recipes.reports import figures, tables
from recipes.reports.judge_summary import ALL, Row
from recipes.reports.page import png
from recipes.reports.tables import number

MEASURES = {
    "fidelity_quiet": "fidelity in quiet (clarity is the same)",
    "fidelity_noise": "fidelity in noise",
    "clarity_noise": "clarity in noise",
}
"""Restorations by what the normal ear hears: the same sound, or the clean speech in it."""

JUDGES = {"truth": "the true midbrains", "model": "the model's own opinion"}

LEVEL_QUIET, LEVEL_NOISE = "level_change_quiet_db", "level_change_db"
"""What a device adds to the level: neither good nor bad."""

LEVELS = {LEVEL_QUIET: "dB added in quiet", LEVEL_NOISE: "dB added in noise"}


def report(judged: dict) -> str:
    """Markdown: restoration and level of each device, comparisons, the model's error, scores."""
    parts = [
        _about(judged),
        _restoration_table(judged),
        *(_comparison_table(judged, device) for device in _ours(judged)),
        _gap_table(judged),
        _score_table(judged),
        *(f"Without {what}: {reason}.\n" for what, reason in judged["left_out"].items()),
    ]
    return "\n".join(part for part in parts if part)


def write(out: Path, judged: dict, measured: Sequence[Row], table: Sequence[Row]) -> None:
    """Tables and figures first; `judged.json` says that they are whole."""
    labels = {name: device["label"] for name, device in judged["devices"].items()}
    write_csv(out / "measurements.csv", measured)
    write_csv(out / "restoration.csv", [row for row in judged["means"] if row["judge"]])
    write_csv(out / "comparisons.csv", judged["comparisons"])
    write_whole(out / "scores.md", report(judged))
    if table:
        write_csv(out / "scores.csv", table)
    for judge in judged["judges"]:
        rows = [row for row in judged["means"] if (row["listener"], row["judge"]) == (ALL, judge)]
        values, spread = (
            {
                MEASURES[measure]: {
                    labels[row["device"]]: of(row) for row in rows if row["measure"] == measure
                }
                for measure in dict.fromkeys(row["measure"] for row in rows)
            }
            for of in (lambda row: row["mean"], lambda row: (row["low"], row["high"]))
        )
        if values:
            drawn = figures.grouped_bars(values, f"restoration by {JUDGES[judge]}", spread=spread)
            write_whole(out / f"restoration-{judge}.png", png(drawn))
    write_json(out / "judged.json", judged)


def _about(judged: dict) -> str:
    listeners = [name for name, one in judged["listeners"].items() if one["status"] != "NH"]
    sources = {
        measure: row["sounds"]
        for row in judged["means"]
        for measure in MEASURES
        if (row["listener"], row["measure"]) == (ALL, measure)
    }
    counts = [f"{sources['fidelity_quiet']} in quiet"]
    if "fidelity_noise" in sources:
        counts.append(f"{sources['fidelity_noise']} in noise")
    who = f"{len(listeners)} with a loss" if listeners else f"{len(judged['listeners'])}, none lost"
    return (
        f"Listeners: {who}. Sounds, by voice or piece: {', '.join(counts)}. "
        "Means over listeners; in brackets 95 % intervals over listeners and sounds, of this one "
        "aid, model and cohort.\n"
    )


def _restoration_table(judged: dict) -> str:
    rows = {
        (row["judge"], row["measure"], row["device"]): row
        for row in judged["means"]
        if row["listener"] == ALL
    }
    columns = [
        (judge, measure, f"{MEASURES[measure]}, by {JUDGES[judge]}")
        for judge, measures in judged["restoration"].items()
        for measure in measures
    ]
    there = {measure for _, measure, _ in rows}
    levels = [(measure, label) for measure, label in LEVELS.items() if measure in there]
    lines = [["device", "delay [ms]", *(label for *_, label in columns)]]
    lines[0] += [label for _, label in levels]
    for name, device in judged["devices"].items():
        line = [device["label"], number(device["delay_ms"], 1)]
        line += [mean_cell(rows.get((judge, measure, name)), 2) for judge, measure, _ in columns]
        line += [
            mean_cell(rows.get(("", measure, name)), 1, interval=False) for measure, _ in levels
        ]
        lines.append(line)
    return markdown(lines)


def _comparison_table(judged: dict, device: str) -> str:
    """One device less every other, by the first judge and by scores."""
    rows = {
        (row["measure"], row["other"]): row
        for row in judged["comparisons"]
        if (row["listener"], row["device"]) == (ALL, device)
        and row["judge"] in ("", judged["judges"][0])
    }
    labels = {name: one["label"] for name, one in judged["devices"].items()}
    measures = list(dict.fromkeys(measure for measure, _ in rows))
    lines = [[f"{labels[device]}, less", *(MEASURES.get(name, name) for name in measures)]]
    for other in dict.fromkeys(other for _, other in rows):
        found = [rows.get((measure, other)) for measure in measures]
        lines.append([labels[other], *(difference_cell(row) for row in found)])
    return markdown(lines) if rows else ""


def _gap_table(judged: dict) -> str:
    """How far the model's opinion of our devices is off, listener by listener."""
    rows = {(r["device"], r["measure"], r["listener"]): r for r in judged["gaps"]}
    if not rows:
        return ""
    listeners = list(judged["listeners"])
    header = ["the model's opinion less the truth", "mean of magnitudes", "worst", *listeners]
    lines = [header]
    for device, measure in dict.fromkeys(key[:2] for key in rows):
        together = rows.get((device, measure, ALL))
        own = [rows.get((device, measure, name)) for name in listeners]
        label = f"{judged['devices'][device]['label']}, {MEASURES[measure]}"
        gaps = [number(row and row["gap"], 2) for row in (together, *own)]
        worst = number(together and together["worst"], 2)
        lines.append([label, gaps[0], worst, *gaps[1:]])
    return markdown(lines)


def _score_table(judged: dict) -> str:
    """Scores of noisy speech after each device."""
    rows = {
        (row["device"], row["measure"]): row
        for row in judged["means"]
        if row["listener"] == ALL and not row["judge"] and row["measure"] not in LEVELS
    }
    names = list(dict.fromkeys(name for _, name in rows))
    lines = [["noisy speech after", *names]]
    for name, device in judged["devices"].items():
        lines.append([device["label"], *(mean_cell(rows.get((name, score)), 3) for score in names)])
    return markdown(lines) if rows else ""


def _ours(judged: dict) -> list[str]:
    return list(dict.fromkeys(row["device"] for row in judged["comparisons"]))


def mean_cell(row: Row | None, digits: int, interval: bool = True) -> str:
    """A mean with its interval; how many values are missing, if any are."""
    if row is None or row["mean"] is None:
        return "missing"
    text = number(row["mean"], digits) + (_interval(row, digits) if interval else "")
    return text + (f" ({row['missing']} missing)" if row["missing"] else "")


def difference_cell(row: Row | None) -> str:
    """A difference with its interval and verdict."""
    if row is None or row["difference"] is None:
        return "missing"
    digits = 3 if abs(row["difference"]) < 0.1 else 2
    between = number(row["difference"], digits)
    return f"{between}{_interval(row, digits)} {row['verdict']}"


def _interval(row: Row, digits: int) -> str:
    if row["low"] is None:
        return ""
    return f" [{number(row['low'], digits)}, {number(row['high'], digits)}]"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its header, with numbers on the right."""
    return tables.markdown(lines, "---:") + "\n"
