"""Summary, tables, figures and a page of the benchmark of aids."""

import json
from pathlib import Path

import torch
from matplotlib.figure import Figure

from recipes import figures
from recipes.benchmark_compensation.summary import Run, read, summarise
from recipes.benchmark_compensation.tables import LABELS, tables
from recipes.cells import Table
from recipes.pages import inline, png, template
from recipes.state import write_json, write_whole
from recipes.train_compensation import Gauge

REACH = (-0.2, 1.02)
"""Of restoration as it is drawn; bars beyond are cut off."""

SHOWN_HZ = (500, 1000, 2000, 4000, 8000)
"""Bands whose gain is drawn over level."""

SHOWN = ("nal_r", "masks", "masks_audiogram", "own", "ceiling")
"""Devices whose gains at the middle level are drawn over frequency."""


def write(out: Path) -> dict:
    """Write `summary.json`, `tables.md`, `figures` and `report.html` from all complete seeds.

    Returns:
        The summary.

    Raises:
        ValueError: If no seed is complete.
    """
    runs = read(out)
    summary = summarise(runs)
    write_json(out / "summary.json", summary)
    made = tables(summary)
    write_whole(out / "tables.md", markdown(summary, made))
    # Folders that came from elsewhere may have come without sounds.
    heard = [run for run in runs if any(run.folder.glob("judged/*/*.flac"))]
    shown = [*heard, runs[0]][0]
    listeners = _listeners(shown)
    images = {name: png(figure) for name, figure in draw(summary, shown, listeners).items()}
    for name in listeners:
        for path in sorted((shown.folder / "judged" / name).glob("*.png")):
            images[f"{name}-{path.stem}"] = path.read_bytes()
    (out / "figures").mkdir(exist_ok=True)
    for name, image in images.items():
        write_whole(out / "figures" / f"{name}.png", image)
    write_whole(out / "report.html", page(out, summary, made, images, shown, listeners))
    return summary


def markdown(summary: dict, made: dict[str, Table]) -> str:
    """All tables as Markdown."""
    seeds = ", ".join(map(str, summary["seeds"]))
    title = f"# Benchmark of aids, seeds {seeds}\n"
    return "\n".join([title, *(table.markdown() for table in made.values() if table.rows)])


def draw(summary: dict, first: Run, listeners: list[str]) -> dict[str, Figure]:
    """All figures, by name."""
    truth, inside = summary["restoration"], summary["restoration_model"]
    devices = [name for name in truth if name != "unprocessed"]
    levels = torch.tensor([float(n.split()[0]) for n in truth["masks"]["by_level"]])
    drawn = {
        "restoration": figures.grouped_bars(
            {
                "true midbrains": {LABELS[d]: truth[d]["quiet"] for d in devices},
                "true midbrains, in noise": {LABELS[d]: truth[d]["noise"] for d in devices},
                "the model's opinion": {LABELS[d]: inside[d]["quiet"] for d in devices},
            },
            "restoration",
            limits=REACH,
        ),
        "by_group": figures.grouped_bars(
            {
                group: {LABELS[d]: truth[d]["by_group"][group] for d in devices}
                for group in truth["masks"]["by_group"]
            },
            "restoration in quiet, true midbrains",
            limits=REACH,
        ),
        "by_level": figures.level_curves(
            levels,
            {LABELS[d]: torch.tensor(list(truth[d]["by_level"].values())) for d in devices},
            "restoration",
            "Restoration by level",
        ),
    }
    centres = Gauge().bands.centres_hz
    for name in listeners:
        measured = first.judged[name]["restoration"]
        quiet = [found for condition, found in measured.items() if condition != "noise"]
        middle = quiet[len(quiet) // 2]
        drawn[f"{name}-gains"] = figures.gain_curves(
            centres, {LABELS[d]: torch.tensor(middle[d]["gain_db"]) for d in SHOWN}, name
        )
        bands = {hz: (centres - hz).abs().argmin() for hz in SHOWN_HZ}
        by_band = {
            f"{hz} Hz": torch.tensor([found["masks"]["gain_db"][band] for found in quiet])
            for hz, band in bands.items()
        }
        drawn[f"{name}-levels"] = figures.level_curves(
            levels, by_band, "gain [dB]", f"{name}: {LABELS['masks']}"
        )
    return drawn


def page(
    out: Path,
    summary: dict,
    made: dict[str, Table],
    images: dict[str, bytes],
    first: Run,
    listeners: list[str],
) -> str:
    """One HTML page with everything in it."""
    return template("benchmark_compensation.html").render(
        summary=summary,
        tables=made,
        images={name: inline("image/png", image) for name, image in images.items()},
        config=json.loads((out / "config.json").read_text()),
        listeners=[
            {
                "name": name,
                "group": first.groups[name],
                "sounds": {
                    LABELS[path.stem]: inline("audio/flac", path.read_bytes())
                    for path in sorted((first.folder / "judged" / name).glob("*.flac"))
                },
            }
            for name in listeners
        ],
    )


def _listeners(first: Run) -> list[str]:
    """One of each group."""
    found = {group: name for name, group in reversed(first.groups.items()) if group != "normal"}
    return list(reversed(found.values()))
