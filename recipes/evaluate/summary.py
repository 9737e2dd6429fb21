"""What the rows of all files say together."""

import collections
import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from evaluation.neural import pooled_difference, pooled_interval, pooled_restoration
from evaluation.table import Row, differences, summarise
from recipes.evaluate.config import RESTORATION

SPEECH_DB_SPL = (45.0, 85.0)
"""Speech is seldom softer or louder [dB SPL] (chosen here): a warning outside."""


@dataclasses.dataclass(frozen=True)
class Meaning:
    """How a score is shown and read."""

    label: str
    better: int
    """1 if more is better, 0 if neither is."""
    digits: int
    text: str


MEANINGS = {
    "stoi": Meaning(
        "STOI",
        1,
        3,
        "Intelligibility for normal ears, 0 to 1. Blind to level and to hearing loss.",
    ),
    "estoi": Meaning(
        "ESTOI", 1, 3, "As STOI, and valid in fluctuating noise too. Prefer it to STOI."
    ),
    "pesq": Meaning(
        "PESQ wide",
        1,
        2,
        "Quality for normal ears, 1.04 to 4.64, up to 8 kHz. Counts intended gain by frequency "
        "as a fault; near its floor in noise.",
    ),
    "pesq_narrow": Meaning(
        "PESQ narrow",
        1,
        2,
        "The same up to 4 kHz, 1.02 to 4.55, on a scale of its own.",
    ),
    "si_sdr_db": Meaning(
        "SI-SDR [dB]",
        1,
        1,
        "Speech over all that is not the clean waveform. Every intended gain by frequency, and "
        "half a sample of delay, count as distortion.",
    ),
    "haspi": Meaning(
        "HASPI",
        1,
        3,
        "Intelligibility for the audiogram, 0 to 1. Near its top for mild losses; may rise with "
        "distortions that are plainly heard: read a quality score beside it.",
    ),
    "hasqi": Meaning(
        "HASQI",
        1,
        3,
        "Quality for the audiogram, 0 to 1. Its ideal is clean speech amplified by NAL-R, which "
        "favours NAL-R.",
    ),
    "restoration": Meaning(
        "Restoration",
        1,
        3,
        "Share of the difference between the listener's midbrain and a normal one that the device "
        "takes away: 1 all, 0 none, below 0 harm. A learned model's opinion, pooled over files.",
    ),
    "output_db_spl": Meaning(
        "Output [dB SPL]",
        0,
        1,
        "RMS level of the processed sound.",
    ),
    "level_change_db": Meaning(
        "Level change [dB]",
        0,
        1,
        "How much louder it became. A louder device is easily taken for a better one.",
    ),
}


def summary(rows: Sequence[dict], seed: int) -> list[Row]:
    """For each device and score: mean, interval, how many files; restoration pooled."""
    found = summarise(flat(rows), seed=seed)
    by_device = collections.defaultdict(list)
    for row in rows:
        by_device[row["device"]].append(row)
    for one in found:
        if one["score"] == RESTORATION and one["files"]:
            aided, unaided = _discrepancies(by_device[one["device"]]).T
            one["mean"] = _digits(pooled_restoration(aided, unaided))
            one["low"], one["high"] = map(_digits, pooled_interval(aided, unaided, seed=seed))
    return found


def compared(rows: Sequence[dict], seed: int) -> list[Row]:
    """Every two devices on the files that both have; restoration pooled."""
    found = differences(flat(rows), seed=seed)
    restored = collections.defaultdict(dict)
    for row in rows:
        if row["scores"].get(RESTORATION) is not None:
            restored[row["device"]][row["file"]] = row
    for one in found:
        if one["score"] == RESTORATION and one["files"]:
            first, second = restored[one["first"]], restored[one["second"]]
            files = [file for file in first if file in second]
            pairs = (_discrepancies([own[f] for f in files]) for own in (first, second))
            between, interval = pooled_difference(*pairs, seed=seed)
            one["difference"] = _digits(between)
            one["low"], one["high"] = map(_digits, interval)
        one["verdict"] = _verdict(one)
    return found


def flat(rows: Sequence[dict]) -> list[Row]:
    """Rows as `evaluation.table` takes them: device, file, scores."""
    return [
        {"device": row["device"], "file": row["file"]}
        | {name: _digits(value) for name, value in row["scores"].items()}
        for row in rows
    ]


def table(rows: Sequence[dict]) -> list[Row]:
    """Everything about each file, as CSV holds it."""
    facts = list(dict.fromkeys(key for row in rows for key in row["facts"]))
    return [
        scores
        | {key: _digits(row["facts"].get(key)) for key in facts}
        | {"missing": why(row), "notes": "; ".join(row["notes"])}
        for row, scores in zip(rows, flat(rows), strict=True)
    ]


def why(row: dict) -> str:
    """Why scores of a file are missing; scores with one reason are named together."""
    by_reason = collections.defaultdict(list)
    for name, reason in row["reasons"].items():
        by_reason[reason].append(name)
    if len(by_reason) == 1 and len(row["reasons"]) == len(row["scores"]):
        return f"not scored: {next(iter(by_reason))}"
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())


def warnings(rows: Sequence[dict]) -> list[str]:
    """What makes all scores doubtful."""
    found = []
    levels = [row["facts"]["clean_db_spl"] for row in rows if row["facts"]]
    low, high = SPEECH_DB_SPL
    if levels and not low <= statistics.median(levels) <= high:
        found.append(
            f"the clean files are at {statistics.median(levels):.0f} dB SPL, no level of speech: "
            "HASPI, HASQI and restoration depend on it; set --full_scale_db_spl, or "
            "--clean_db_spl 65 if their level means nothing"
        )
    for device, own in itertools.groupby(rows, key=lambda row: row["device"]):
        scored = [row for row in own if row["facts"]]
        unknown = [row for row in scored if row["facts"]["delay_ms"] is None]
        if len(unknown) > 0.2 * len(scored):
            found.append(
                f"{device}: {len(unknown)} of {len(scored)} files have no clear delay and were "
                "compared as they are"
            )
    return found


def _discrepancies(rows: Sequence[dict]) -> Tensor:
    """Aided and unaided, `(S, 2)`, of rows that have them."""
    kept = [row["facts"] for row in rows if row["scores"].get(RESTORATION) is not None]
    pairs = [(facts["discrepancy_aided"], facts["discrepancy_unaided"]) for facts in kept]
    return torch.tensor(pairs, dtype=torch.float64)


def _verdict(one: Row) -> str:
    if one["low"] is None:
        return "too few files"
    if one["low"] <= 0 <= one["high"]:
        return "no clear difference"
    if not MEANINGS[one["score"]].better:
        return "higher" if one["low"] > 0 else "lower"
    return "better" if one["low"] > 0 else "worse"


def _digits(value: float | None) -> float | None:
    """Six digits are more than any of these scores means."""
    return None if value is None or math.isnan(value) else float(f"{value:.6g}")
