"""What `recipes.judge` writes: tables and figures with every measure named."""

from collections.abc import Mapping
from pathlib import Path

from evaluation.table import markdown, write_csv
from recipes import figures
from recipes.pages import png
from recipes.state import write_json, write_whole

MEASURES = {
    "fidelity_quiet": "fidelity and clarity in quiet (there the same)",
    "fidelity_noise": "fidelity in noise",
    "clarity_noise": "clarity in noise",
}
"""Restoration is one of these; `docs/notation.md` has the formulas."""

JUDGES = {"truth": "the true midbrains", "model": "the model's own opinion"}


def report(judged: dict) -> str:
    """Mean restorations as a Markdown table: a device a line, a measure and judge a column."""
    columns = [
        (judge, measure)
        for judge, measures in judged["restoration"].items()
        for measure in measures
    ]
    lines = [
        ["device", "delay [ms]", *(f"{MEASURES[m]}, by {JUDGES[j]}" for j, m in columns)],
        ["---", *("---:" for _ in range(1 + len(columns)))],
    ]
    for name, device in judged["devices"].items():
        values = [judged["restoration"][judge][measure].get(name) for judge, measure in columns]
        shown = ["missing" if value is None else f"{value:+.2f}" for value in values]
        lines.append([device["label"], f"{device['delay_ms']:.1f}", *shown])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write(out: Path, judged: dict, table: list[dict]) -> None:
    """Tables and figures first; `judged.json` says that they are whole."""
    labels = {name: device["label"] for name, device in judged["devices"].items()}
    notes = "".join(f"\nWithout {what}: {reason}.\n" for what, reason in judged["left_out"].items())
    named = [row | {"device": labels[row["device"]]} for row in judged["scores"]]
    scored = f"\n{markdown(named)}" if named else ""
    write_csv(out / "restoration.csv", _restoration_rows(judged["listeners"]))
    write_whole(out / "scores.md", report(judged) + scored + notes)
    if table:
        write_csv(out / "scores.csv", table)
    for judge, by_measure in judged["restoration"].items():
        groups = {
            MEASURES[measure]: {labels[name]: value for name, value in values.items()}
            for measure, values in by_measure.items()
        }
        if groups:
            drawn = figures.grouped_bars(groups, f"restoration by {JUDGES[judge]}")
            write_whole(out / f"restoration-{judge}.png", png(drawn))
    write_json(out / "judged.json", judged)


def _restoration_rows(listeners: Mapping[str, dict]) -> list[dict]:
    return [
        {
            "listener": name,
            "judge": judge,
            "measure": measure,
            "device": device,
            "restoration": value["restoration"],
            "low": value["interval"][0],
            "high": value["interval"][1],
        }
        for name, listener in listeners.items()
        for judge in JUDGES
        for measure, devices in listener.get(judge, {}).items()
        for device, value in devices.items()
    ]
