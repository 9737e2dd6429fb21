"""What the rows of all files say together."""

import collections
import itertools
import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from evaluation.comparison import CANNOT_BE_TOLD, difference
from evaluation.folders import FullScales
from evaluation.neural import pooled_interval, pooled_restoration
from evaluation.scores import MEANINGS, RESTORATION
from evaluation.table import Row, summarise

SPEECH_DB_SPL = (45.0, 85.0)
"""Speech is seldom softer or louder [dB SPL] (chosen here): a warning outside."""


ALIKE_DB = 3.0
"""Speech within noisy files is at most so much louder or softer than in the clean ones, if both
folders have one full scale [dB] (chosen here)."""

SOFTER_DB, LOUDER_DB = 6.0, 40.0
"""A device seldom makes speech softer or louder by more [dB] (chosen here)."""


def summary(rows: Sequence[dict], seed: int) -> list[Row]:
    """For each device and score: mean, interval, how many files; restoration pooled."""
    means = summarise(flat(rows), seed=seed)
    by_device = collections.defaultdict(list)
    for row in rows:
        by_device[row["device"]].append(row)
    for one in means:
        if one["score"] == RESTORATION and one["files"]:
            aided, unaided = _discrepancies(by_device[one["device"]]).T
            one["mean"] = _digits(pooled_restoration(aided, unaided))
            one["low"], one["high"] = map(_digits, pooled_interval(aided, unaided, seed=seed))
    return means


def compared(rows: Sequence[dict], seed: int) -> list[Row]:
    """Every two devices on the files that both have; restoration pooled.

    The same files are compared, so that what makes one file harder than another drops out.

    Returns:
        One row for each pair and score: `first`, `second`, `score`, `difference` (second less
        first), `low`, `high`, `files`, `verdict`. Empty for one device.
    """
    by_device: dict[str, dict[str, dict]] = collections.defaultdict(dict)
    for row in rows:
        by_device[row["device"]][row["file"]] = row
    names = list(dict.fromkeys(name for row in rows for name in row["scores"]))
    comparisons = []
    for first, second in itertools.combinations(by_device, 2):
        pairs = [
            (row, by_device[second][file])
            for file, row in by_device[first].items()
            if file in by_device[second]
        ]
        for name in names:
            both = [pair for pair in pairs if None not in [row["scores"].get(name) for row in pair]]
            labels = {"first": first, "second": second, "score": name}
            comparisons.append(labels | _difference(both, name, seed))
    return comparisons


def _difference(pairs: Sequence[tuple[dict, dict]], score: str, seed: int) -> Row:
    """By how much the second row of each pair scores higher than the first."""
    if not pairs:
        numbers = dict.fromkeys(("difference", "low", "high"))
        return numbers | {"files": 0, "verdict": CANNOT_BE_TOLD}
    both = list(zip(*pairs, strict=True))
    if score == RESTORATION:
        aided, totals = torch.stack([_discrepancies(rows) for rows in both]).unbind(-1)
        amounts = totals - aided
    else:
        scores = [[row["scores"][score] for row in rows] for rows in both]
        amounts, totals = torch.tensor(scores, dtype=torch.float64), torch.ones(len(pairs))
    alone = [0] * len(pairs)
    between = difference(amounts, totals, alone, alone, range(len(pairs)), seed)
    verdict = between.verdict
    if not MEANINGS[score].better:
        verdict = {"better": "higher", "worse": "lower"}.get(verdict, verdict)
    return {
        "difference": _digits(between.estimate),
        "low": _digits(between.low),
        "high": _digits(between.high),
        "files": len(pairs),
        "verdict": verdict,
    }


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


def levels(rows: Sequence[dict], full_scales: FullScales) -> list[Row]:
    """Levels of each folder: its full scale, and its files' median, least and most [dB SPL]."""
    by_device = collections.defaultdict(list)
    for row in rows:
        by_device[row["device"]].append(row)
    # The clean and the noisy files are the same for every device.
    first = list({row["file"]: row for row in reversed(rows) if row["facts"]}.values())
    folders = [("clean", full_scales.clean_db_spl, "clean_db_spl", first)]
    if any("noisy_db_spl" in row["facts"] for row in first):
        folders.append(("noisy", full_scales.noisy_db_spl, "noisy_db_spl", first))
    for (device, of_device), level_db_spl in zip(
        by_device.items(), full_scales.processed_db_spl, strict=True
    ):
        folders.append((device, level_db_spl, "processed_db_spl", of_device))
    lines = []
    for name, full_scale_db_spl, fact, of_device in folders:
        values = [row["facts"][fact] for row in of_device if row["facts"].get(fact) is not None]
        described = {"median": math.nan, "least": math.nan, "most": math.nan}
        if values:
            described = {
                "median": statistics.median(values),
                "least": min(values),
                "most": max(values),
            }
        level: Row = {"folder": name, "files": len(values), "full_scale_db_spl": full_scale_db_spl}
        lines.append(level | {f"{key}_db_spl": _digits(value) for key, value in described.items()})
    return lines


def warnings(rows: Sequence[dict], full_scales: FullScales) -> list[str]:
    """What makes all scores doubtful."""
    texts = []
    level_db_spl, _ = _median(rows, "clean_db_spl")
    low, high = SPEECH_DB_SPL
    if level_db_spl is not None and not low <= level_db_spl <= high:
        texts.append(
            f"the clean files are at {level_db_spl:.0f} dB SPL, no level of speech: HASPI, HASQI "
            "and restoration depend on it; an RMS of 1 was taken for "
            f"{full_scales.clean_db_spl:g} dB SPL: set --full_scale_db_spl (or "
            "--clean_full_scale_db_spl if other folders have another), "
            "or --clean_db_spl 65 if their level means nothing"
        )
    texts += _noisy_levels(rows, full_scales.noisy_db_spl)
    for (device, of_device), full_scale_db_spl in zip(
        itertools.groupby(rows, key=lambda row: row["device"]),
        full_scales.processed_db_spl,
        strict=True,
    ):
        texts += _processed_levels(device, list(of_device), full_scale_db_spl)
    for device, of_device in itertools.groupby(rows, key=lambda row: row["device"]):
        scored = [row for row in of_device if row["facts"]]
        unknown = [row for row in scored if row["facts"]["delay_ms"] is None]
        if len(unknown) > 0.2 * len(scored):
            texts.append(
                f"{device}: {len(unknown)} of {len(scored)} files have no clear delay and were "
                "compared as they are"
            )
    return texts


def _noisy_levels(rows: Sequence[dict], full_scale_db_spl: float) -> list[str]:
    """Whether noisy files hold the clean speech at the clean files' level."""
    ratio_db, count = _median(rows, "speech_in_noisy_db")
    if ratio_db is not None:
        if abs(ratio_db) <= ALIKE_DB:
            return []
        measured = f"hold the clean speech {_louder(ratio_db)} than the clean files have it"
    else:
        # The two are hardly alike: noise can only add to the speech.
        ratio_db, count = _median(rows, "noisy_db_spl", "clean_db_spl")
        if ratio_db is None or ratio_db >= -ALIKE_DB:
            return []
        measured = f"are {_louder(ratio_db)} than the clean files, though noise adds to speech"
    return [
        f"the noisy files {measured} (median of {count}): the two folders seem to have different "
        "full scales, and level change and restoration are wrong by as much; if so, set "
        f"--noisy_full_scale_db_spl {full_scale_db_spl - ratio_db:.1f} in place of "
        f"{full_scale_db_spl:g}"
    ]


def _processed_levels(device: str, rows: Sequence[dict], full_scale_db_spl: float) -> list[str]:
    """Whether a device's files are as loud as those of a device may be."""
    change_db, count = _median(rows, "processed_db_spl", "clean_db_spl")
    if change_db is None or -SOFTER_DB <= change_db <= LOUDER_DB:
        return []
    return [
        f"{device}: the files are {_louder(change_db)} than the clean speech (median of {count}), "
        "which devices seldom do: HASPI, HASQI, restoration and levels depend on it; if its files "
        f"have another full scale than {full_scale_db_spl:g} dB SPL, say so by "
        f"--processed_full_scale_db_spl ({full_scale_db_spl - change_db:.1f} would make both "
        "equally loud)"
    ]


def _louder(db: float) -> str:
    return f"{abs(db):.1f} dB {'louder' if db > 0 else 'softer'}"


def _median(rows: Sequence[dict], fact: str, less: str | None = None) -> tuple[float | None, int]:
    """Median of a fact, or of its difference from another, and of how many rows."""
    pairs = [
        (row["facts"].get(fact), row["facts"].get(less) if less else 0.0)
        for row in rows
        if row["facts"]
    ]
    values = [first - other for first, other in pairs if first is not None and other is not None]
    return (statistics.median(values) if values else None), len(values)


def _discrepancies(rows: Sequence[dict]) -> Tensor:
    """Aided and unaided, `(S, 2)`, of rows that have them."""
    restored = [row["facts"] for row in rows if row["scores"].get(RESTORATION) is not None]
    pairs = [(facts["discrepancy_aided"], facts["discrepancy_unaided"]) for facts in restored]
    return torch.tensor(pairs, dtype=torch.float64)


def _digits(value: float | None) -> float | None:
    """Six digits are more than any of these scores means."""
    return None if value is None or math.isnan(value) else float(f"{value:.6g}")
