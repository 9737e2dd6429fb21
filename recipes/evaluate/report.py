"""Tables, figures and one page about all files."""

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from evaluation.comparison import FEWEST_SOUNDS_OF_ONE
from evaluation.table import write_csv
from icsim.audiogram import audiogram
from recipes.cells import number
from recipes.evaluate import drawing
from recipes.evaluate.config import Config, wanted_scores
from recipes.evaluate.files import Pair, prepare
from recipes.evaluate.summary import (
    MEANINGS,
    compared,
    levels,
    summary,
    table,
    warnings,
    why,
)
from recipes.pages import inline, png, template
from recipes.state import write_json, write_whole

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


def write(config: Config, pairs: Sequence[Pair], rows: Sequence[dict]) -> dict:
    """Write `scores.csv`, `scores.json` and `report.html` into `out`.

    Args:
        config: How they were scored.
        pairs: The files.
        rows: What was found of each.

    Returns:
        `summary`, `differences`, `warnings`, `levels` (a row a folder), `failures` and `notes` (a
        line a file), `files`, `report` (path).
    """
    out = Path(config.out)
    failures = [f"{row['device']}: {row['file']}: {why(row)}" for row in rows if row["reasons"]]
    found = {
        "files": len(rows),
        "warnings": warnings(rows, config),
        "levels": levels(rows, config),
        "failures": failures,
        "notes": [
            f"{row['device']}: {row['file']}: {'; '.join(row['notes'])}"
            for row in rows
            if row["notes"]
        ],
        "summary": summary(rows, config.seed),
        "differences": compared(rows, config.seed),
    }
    whole = table(rows)
    write_csv(out / "scores.csv", whole)
    setting = {"config": dataclasses.asdict(config), "listener": _listener(config)}
    write_json(out / "scores.json", setting | found | {"rows": whole})
    write_whole(out / "report.html", page(config, pairs, rows, found))
    return found | {"report": str(out / "report.html")}


def page(config: Config, pairs: Sequence[Pair], rows: Sequence[dict], found: dict) -> str:
    """One HTML page with everything in it."""
    names = list(wanted_scores(config))
    devices = list(dict.fromkeys(row["device"] for row in rows))
    ranking = next((n for n in RANKED_BY if n in names and _values(rows, n)), None)
    ordered = _worst_first(rows, ranking)
    return template("evaluate.html", number=_number).render(
        config=config,
        listener=_listener(config),
        ear=_points(config),
        devices=devices,
        names=names,
        meanings=MEANINGS,
        found=found,
        cells={(row["device"], row["score"]): row for row in found["summary"]},
        figures=[
            (name, _distributions(rows, name, devices)) for name in names if _values(rows, name)
        ],
        rows=[dict(row, why=why(row)) for row in ordered[:MOST_ROWS]],
        row_count=len(rows),
        noted=[row for row in rows if row["notes"]][:MOST_FAILURES],
        failed=[dict(row, why=why(row)) for row in rows if row["reasons"]][:MOST_FAILURES],
        ranking=ranking,
        examples=examples(config, pairs, ordered),
        example_s=EXAMPLE_S,
        least_files=FEWEST_SOUNDS_OF_ONE,
    )


def examples(config: Config, pairs: Sequence[Pair], ordered: Sequence[dict]) -> list[dict]:
    """The worst files to hear and to see, with what every device made of them."""
    found = []
    scored = dict.fromkeys(row["file"] for row in ordered if row["facts"])
    for name in list(scored)[: config.examples]:
        own = {pair.device: pair for pair in pairs if pair.name == name}
        sounds, rate = _heard(config, own)
        if not sounds:
            continue
        peak = max(sound.abs().max().item() for sound in sounds.values())
        scale = torch.tensor(PEAK / peak)
        found.append(
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
                "image": inline("image/png", png(drawing.spectrograms(sounds, rate), 110)),
            }
        )
    return found


def _heard(config: Config, own: dict[str, Pair]) -> tuple[dict[str, Tensor], float]:
    """Clean, noisy and processed sounds of one name, at the rate of the clean one."""
    sounds, rate = {}, 0.0
    for device, pair in own.items():
        try:
            found = prepare(pair, config)
        except (ValueError, RuntimeError, OSError):
            continue
        rate = found.rate_hz
        before = {CLEAN: found.clean}
        if found.noisy is not None:
            before[NOISY] = found.noisy
        for version, sound in {**before, device: found.processed}.items():
            sounds.setdefault(version, sound[: round(EXAMPLE_S * rate)])
    return sounds, rate


def _flac(sound: Tensor, rate: float) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound.numpy(), round(rate), "PCM_16", format="FLAC")
    return buffer.getvalue()


def _worst_first(rows: Sequence[dict], ranking: str | None) -> list[dict]:
    """By the mean of a score over devices, files without it last."""
    by_file: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"].get(ranking)
        by_file.setdefault(row["file"], []).extend([] if value is None else [value])
    means = {file: sum(v) / len(v) for file, v in by_file.items() if v}
    return sorted(rows, key=lambda row: (row["file"] not in means, means.get(row["file"], 0.0)))


def _distributions(rows: Sequence[dict], name: str, devices: Sequence[str]) -> str:
    values = {d: _values([row for row in rows if row["device"] == d], name) for d in devices}
    return inline("image/png", png(drawing.distributions(values, MEANINGS[name].label), 110))


def _row(rows: Sequence[dict], name: str, device: str) -> dict | None:
    return next((r for r in rows if (r["file"], r["device"]) == (name, device)), None)


def _values(rows: Sequence[dict], name: str) -> list[float]:
    return [row["scores"][name] for row in rows if row["scores"].get(name) is not None]


def _listener(config: Config) -> dict:
    ear = audiogram(config.audiogram) if config.audiogram else None
    return {
        "name": config.audiogram,
        "audiogram": dataclasses.asdict(ear) if ear else None,
        "theta": config.theta,
        "model": config.model,
    }


def _points(config: Config) -> list[tuple[float, float]]:
    """The audiogram, point by point."""
    if config.audiogram is None:
        return []
    ear = audiogram(config.audiogram)
    return list(zip(ear.frequencies_hz, ear.thresholds_db_hl, strict=True))


def _number(value: float | None, name: str) -> str:
    digits = MEANINGS[name].digits if name in MEANINGS else 1
    return number(value, digits)
