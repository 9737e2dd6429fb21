"""Summary, tables, figures and a page of the benchmark of aids."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from recipes import figures
from recipes.benchmark_compensation.material import QUIET
from recipes.benchmark_compensation.summary import gather, summarise
from recipes.benchmark_compensation.tables import GROUPS, OF_GAINS, label, tables
from recipes.cells import Table
from recipes.pages import inline, png, template
from recipes.state import write_json, write_whole

REACH = (-0.2, 1.02)
"""Of restoration as it is drawn; bars beyond are cut off."""

DRAWN = {
    "true midbrains, in quiet": "fidelity, quiet",
    "true midbrains, in noise": "fidelity, noise",
    "clarity of speech in noise": "clarity, noise",
}
"""Quantities of the first figure."""


def write(out: Path, development_seed: int) -> dict:
    """Write `summary.json`, `tables.md`, `figures` and `report.html` from all complete seeds.

    Returns:
        The summary.

    Raises:
        ValueError: If no reported seed is complete.
    """
    rows = gather(out, development_seed)
    summary = summarise(rows, gather(out, development_seed, "ablations"))
    write_json(out / "summary.json", summary)
    made = tables(summary)
    write_whole(out / "tables.md", markdown(summary, made))
    images = {name: png(figure) for name, figure in draw(summary).items()}
    folder = out / f"seed-{summary['seeds'][0]}"
    for seed in summary["seeds"]:
        # Folders that came from elsewhere may have come without sounds.
        if any((out / f"seed-{seed}").glob("judged/*/*.flac")):
            folder = out / f"seed-{seed}"
            break
    first = rows[rows.seed == int(folder.name[5:])]
    listeners = _one_of_each_group(first)
    for name in listeners:
        images[f"{name}-gains"] = png(gain_curves(first[first.listener == name], name))
        for path in sorted((folder / "judged" / name).glob("*.png")):
            images[f"{name}-{path.stem}"] = path.read_bytes()
    (out / "figures").mkdir(exist_ok=True)
    for name, image in images.items():
        write_whole(out / "figures" / f"{name}.png", image)
    write_whole(out / "report.html", page(out, summary, made, images, folder, listeners))
    return summary


def markdown(summary: dict, made: Mapping[str, Table]) -> str:
    """All tables as Markdown."""
    seeds = ", ".join(map(str, summary["seeds"]))
    title = f"# Benchmark of aids, reported seeds {seeds}\n"
    return "\n".join([title, *(table.markdown() for table in made.values() if table.rows)])


def draw(summary: dict) -> dict[str, Figure]:
    """Restoration of every device with its interval, by condition and by hearing."""
    found = {(r["device"], r["quantity"]): r for r in summary["restoration"]}

    def short(device: str) -> str:
        """In lines that leave room for bars."""
        return textwrap.fill(label(device).replace("noise reduction", "NR"), 26)

    devices = [d for d in dict.fromkeys(device for device, _ in found) if d != "unprocessed"]

    def bars(quantities: Mapping[str, str], what: str) -> Figure:
        shown = {
            group: {short(d): found.get((d, quantity)) for d in devices}
            for group, quantity in quantities.items()
            if any((d, quantity) in found for d in devices)
        }
        return figures.grouped_bars(
            {g: {d: r and r["estimate"] for d, r in each.items()} for g, each in shown.items()},
            what,
            limits=REACH,
            spread={
                g: {d: r and (r["low"], r["high"]) for d, r in each.items()}
                for g, each in shown.items()
            },
        )

    return {
        "restoration": bars(DRAWN, "restoration"),
        "by_hearing": bars({group: group for group in GROUPS}, "fidelity in quiet"),
    }


def gain_curves(rows: pd.DataFrame, name: str) -> Figure:
    """Gains of some devices over frequency for one listener, at the middle level."""
    gains = rows[(rows.measure == "gain_db") & (rows.condition == QUIET)]
    levels = sorted(gains.level_db_spl.unique())
    middle = gains[gains.level_db_spl == levels[len(levels) // 2]]
    hz = middle.sound.str.removesuffix(" Hz").astype(float)
    curves = {
        label(device): torch.tensor(middle[middle.device == device].value.to_numpy())
        for device in OF_GAINS
        if (middle.device == device).any()
    }
    centres = torch.tensor(hz[middle.device == middle.device.iloc[0]].to_numpy())
    return figures.gain_curves(centres, curves, name)


def page(
    out: Path,
    summary: dict,
    made: Mapping[str, Table],
    images: Mapping[str, bytes],
    folder: Path,
    listeners: Mapping[str, str],
) -> str:
    """One HTML page with everything in it."""
    return template("benchmark_compensation.html").render(
        summary=summary,
        tables=[table for table in made.values() if table.rows],
        images={name: inline("image/png", image) for name, image in images.items()},
        config=json.loads((out / "config.json").read_text()),
        listeners=[
            {
                "name": name,
                "group": group,
                "sounds": {
                    label(path.stem): inline("audio/flac", path.read_bytes())
                    for path in sorted((folder / "judged" / name).glob("*.flac"))
                },
            }
            for name, group in listeners.items()
        ],
    )


def _one_of_each_group(rows: pd.DataFrame) -> dict[str, str]:
    """The first listener of each group with a loss, and the group."""
    groups = rows[rows.group.isin(GROUPS)].drop_duplicates("group")
    return dict(zip(groups.listener, groups.group, strict=True))
