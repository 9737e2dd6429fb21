"""Scores of files: tables, figures and one page."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile
import torch
from matplotlib.figure import Figure
from torch import Tensor

from evaluation.comparison import FEWEST_SOUNDS_OF_ONE
from evaluation.folders import FullScales, Pair, Reading, prepare
from evaluation.scores import MEANINGS
from evaluation.summary import compared, levels, summary, table, warnings, why
from evaluation.table import write_csv
from icsim.audiogram import audiogram
from icsim.files import write_json, write_whole
from recipes.reports.figures import HALF
from recipes.reports.page import inline, png, template
from recipes.reports.tables import number

WINDOW_S = 0.02
"""Of the spectrograms [s]."""

RANGE_DB = 70.0
"""Of their colours, below the loudest point [dB]."""

POINT, MIDDLE, INK = "#4c72b0", "#dd8452", "#1b1f24"

RANKED_BY = ("haspi", "estoi", "stoi", "pesq", "pesq_narrow", "restoration", "si_sdr_db")
"""The first of these that there is says which files are the worst."""

EXAMPLE_S = 8.0
"""So much of an example can be heard [s]."""

MOST_ROWS, MOST_FAILURES = 1500, 200
"""Of the tables in the page; the CSV has them all."""

CLEAN, NOISY = "clean speech", "before the device"
"""Names of sounds that no device made."""

PEAK = 0.9
"""Of the loudest sound of an example, in its files."""


def write(
    settings: Mapping,
    pairs: Sequence[Pair],
    rows: Sequence[dict],
    full_scales: FullScales,
    reading: Reading,
) -> dict:
    """Write `scores.csv`, `scores.json` and `report.html` into the folder `out` of the settings.

    Args:
        settings: Of `recipes.evaluate`.
        pairs: The files.
        rows: The scores of each.
        full_scales: Of the folders.
        reading: How files are read.

    Returns:
        `summary`, `differences`, `warnings`, `levels` (a row a folder), `failures` and `notes` (a
        line a file), `files`, `report` (path).
    """
    out, ear = Path(settings["out"]), settings["audiogram"] and audiogram(settings["audiogram"])
    summarised = summary(rows, settings["seed"])
    result = {
        "files": len(rows),
        "warnings": warnings(rows, full_scales),
        "levels": levels(rows, full_scales),
        "failures": [
            f"{row['device']}: {row['file']}: {why(row)}" for row in rows if row["reasons"]
        ],
        "notes": [
            f"{row['device']}: {row['file']}: {'; '.join(row['notes'])}"
            for row in rows
            if row["notes"]
        ],
        "summary": summarised,
        "differences": compared(rows, settings["seed"]),
    }
    listener = {
        "name": settings["audiogram"],
        "audiogram": dataclasses.asdict(ear) if ear else None,
        "theta": settings["theta"],
        "model": settings["model"],
    }
    whole = table(rows)
    write_csv(out / "scores.csv", whole)
    head = {"config": dict(settings), "listener": listener}
    write_json(out / "scores.json", head | result | {"rows": whole})
    ordered, ranking = _worst_first(rows)
    page = template("evaluate.html", number=_number).render(
        config=settings,
        listener=listener,
        ear=list(zip(ear.frequencies_hz, ear.thresholds_db_hl, strict=True)) if ear else [],
        devices=list(dict.fromkeys(row["device"] for row in rows)),
        names=list(rows[0]["scores"]),
        meanings=MEANINGS,
        found=result,
        cells={(row["device"], row["score"]): row for row in summarised},
        figures=_figures(rows),
        rows=[dict(row, why=why(row)) for row in ordered[:MOST_ROWS]],
        row_count=len(rows),
        noted=[row for row in rows if row["notes"]][:MOST_FAILURES],
        failed=[dict(row, why=why(row)) for row in rows if row["reasons"]][:MOST_FAILURES],
        ranking=ranking,
        examples=examples(pairs, ordered, reading, settings["examples"]),
        example_s=EXAMPLE_S,
        least_files=FEWEST_SOUNDS_OF_ONE,
    )
    write_whole(out / "report.html", page)
    return result | {"report": str(out / "report.html")}


def examples(
    pairs: Sequence[Pair], ordered: Sequence[dict], reading: Reading, count: int
) -> list[dict]:
    """The worst files to hear and to see, with what every device made of them."""
    shown = []
    scored = dict.fromkeys(row["file"] for row in ordered if row["facts"])
    for name in list(scored)[:count]:
        sounds, rate = _versions([pair for pair in pairs if pair.name == name], reading)
        if not sounds:
            continue
        peak = max(sound.abs().max().item() for sound in sounds.values())
        scale = torch.tensor(PEAK / peak)
        shown.append(
            {
                "name": name,
                "sounds": [
                    (
                        version,
                        inline("audio/flac", _flac(scale * sound, rate)),
                        _row(ordered, name, version),
                    )
                    for version, sound in sounds.items()
                ],
                "image": inline("image/png", png(spectrograms(sounds, rate), 110)),
            }
        )
    return shown


def _versions(pairs: Sequence[Pair], reading: Reading) -> tuple[dict[str, Tensor], float]:
    """Clean, noisy and processed sounds of one name, at the rate of the clean one."""
    sounds: dict[str, Tensor] = {}
    rate = 0.0
    for pair in pairs:
        try:
            prepared = prepare(pair, reading)
        except (ValueError, RuntimeError, OSError):
            continue
        rate = prepared.rate_hz
        before = {CLEAN: prepared.clean}
        if prepared.noisy is not None:
            before[NOISY] = prepared.noisy
        for version, sound in {**before, pair.device: prepared.processed}.items():
            sounds.setdefault(version, sound[: round(EXAMPLE_S * rate)])
    return sounds, rate


def _flac(sound: Tensor, rate: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.numpy(), round(rate), "PCM_16", format="FLAC")
    return buffer.getvalue()


def _worst_first(rows: Sequence[dict]) -> tuple[list[dict], str | None]:
    """Rows by the mean of a score over devices, files without it last; and which score."""
    ranking = next((name for name in RANKED_BY if _values(rows, name)), None)
    by_file: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"].get(ranking)
        by_file.setdefault(row["file"], []).extend([] if value is None else [value])
    means = {file: sum(v) / len(v) for file, v in by_file.items() if v}
    key = {row["file"]: (row["file"] not in means, means.get(row["file"], 0.0)) for row in rows}
    return sorted(rows, key=lambda row: key[row["file"]]), ranking


def _figures(rows: Sequence[dict]) -> list[tuple[str, str]]:
    """A picture of each score that any file has."""
    devices = dict.fromkeys(row["device"] for row in rows)
    shown = []
    for name in rows[0]["scores"]:
        values = {d: _values([row for row in rows if row["device"] == d], name) for d in devices}
        if any(values.values()):
            drawn = distributions(values, MEANINGS[name].label)
            shown.append((name, inline("image/png", png(drawn, 110))))
    return shown


def _row(rows: Sequence[dict], name: str, device: str) -> dict | None:
    return next((r for r in rows if (r["file"], r["device"]) == (name, device)), None)


def _values(rows: Sequence[dict], name: str) -> list[float]:
    return [row["scores"][name] for row in rows if row["scores"].get(name) is not None]


def _number(value: float | None, name: str) -> str:
    digits = MEANINGS[name].digits if name in MEANINGS else 1
    return number(value, digits)


def distributions(values: Mapping[str, list[float]], label: str) -> Figure:
    """One score of all files: a line of points for each device, with median and middle half."""
    figure = Figure(figsize=(HALF, 0.9 + 0.55 * len(values)), layout="constrained")
    axis = figure.subplots()
    for place, points_of in enumerate(values.values()):
        if not points_of:
            axis.text(0.01, place, "missing", va="center", transform=axis.get_yaxis_transform())
            continue
        points = torch.tensor(points_of, dtype=torch.float64)
        generator = torch.Generator().manual_seed(place)
        aside = place + 0.5 * (torch.rand(len(points), generator=generator) - 0.5)
        axis.scatter(points, aside, s=12, alpha=0.5, color=POINT, linewidths=0)
        quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=points.dtype)
        low, middle, high = points.quantile(quartiles).tolist()
        axis.plot([low, high], [place, place], color=INK, linewidth=2.5)
        axis.plot([middle], [place], marker="o", color=MIDDLE, markeredgecolor=INK)
    axis.set_yticks(range(len(values)), labels=[_short(device) for device in values])
    axis.set_ylim(len(values) - 0.5, -0.5)
    axis.set_title(label, fontsize=10, loc="left")
    axis.grid(alpha=0.3, axis="x")
    return figure


def spectrograms(sounds: Mapping[str, Tensor], rate_hz: float) -> Figure:
    """Short-time levels of sounds `(T,)`, one below the other.

    Each has colours of its own: what a device does to the spectrum is seen at any gain.
    """
    figure = Figure(figsize=(HALF, 1.25 * len(sounds) + 0.5), layout="constrained")
    axes = figure.subplots(len(sounds), 1, sharex=True, squeeze=False)[:, 0]
    size = round(WINDOW_S * rate_hz)
    window = torch.hann_window(size)
    for axis, (name, sound) in zip(axes, sounds.items(), strict=True):
        padded = torch.nn.functional.pad(sound, (0, max(0, size - len(sound))))
        power = torch.stft(padded, size, size // 4, window=window, return_complex=True)
        decibel = 10 * torch.log10(power.abs().square().clamp(min=1e-30))
        top = decibel.max().item()
        axis.imshow(
            decibel.numpy(),
            origin="lower",
            aspect="auto",
            vmin=top - RANGE_DB,
            vmax=top,
            cmap="inferno",
            extent=(0, len(sound) / rate_hz, 0, rate_hz / 2000),
        )
        axis.set_title(_short(name, 40), fontsize=9, loc="left")
        axis.set_ylabel("kHz", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("time [s]", fontsize=8)
    return figure


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
