"""Scores of sounds and tables of them: rows, means with intervals, CSV, JSON, Markdown.

A score that cannot be computed is missing and says why. It is never zero, it does not take the
rest of a batch with it, and means say how many files they leave out.
"""

import contextlib
import csv
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icsim.files import whole_file
from icsim.sound import resample

Sounds = Tensor | Sequence[Tensor]
"""Pressures [Pa]: `(B, T)`, or B sounds `(T,)` that may differ in length."""

Row = dict[str, str | float | int | None]

SHORTEST_S = 0.01
"""Shorter sounds are refused by every score [s] (chosen here)."""

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With these begins what a spreadsheet may run; the last four are the full-width =, +, -, @."""

LABELS = ("device", "file", "missing")
"""Columns of a row that are no scores."""


@dataclasses.dataclass(frozen=True)
class Score:
    """One score of B sounds."""

    values: Tensor
    """`(B,)`; NaN where it could not be computed. In double precision, as metrics give them."""
    reasons: tuple[str | None, ...]
    """Why not, for each NaN; None for each number."""
    notes: tuple[str | None, ...] = ()
    """How a number came about where that is not the usual way, one for each sound, or none."""

    def __post_init__(self) -> None:
        missing = [reason is not None for reason in self.reasons]
        if self.values.isnan().tolist() != missing:
            raise ValueError(
                f"{self.values.tolist()} with reasons {self.reasons}; one for each NaN"
            )


def score_each(
    metric: Callable[[Tensor, Tensor], float | tuple[float, str | None]],
    clean: Sounds,
    processed: Sounds,
    sample_rate: float,
    rate_hz: float | None = None,
    shortest_s: float = SHORTEST_S,
    longest_s: float = math.inf,
    seed: int = 0,
) -> Score:
    """Score each pair of sounds; whatever goes wrong with one becomes its reason.

    NumPy's global generator, from which some metrics draw noise, is seeded for each pair and put
    back as it was: a score depends on its pair alone. Use processes, not threads, for speed.

    Args:
        metric: From the two sounds, `(T,)` in double precision on the CPU, to a number, or to a
            number and a note on it.
        clean: The reference.
        processed: What is judged.
        sample_rate: Of both [Hz].
        rate_hz: The rate that the metric wants [Hz]; None for the one they have.
        shortest_s: Shorter pairs are missing [s].
        longest_s: Longer pairs are missing [s].
        seed: Of the metric's noise.

    Raises:
        ValueError: If the two sets differ in number or a tensor is not `(B, T)`.
    """
    if isinstance(clean, Tensor) and isinstance(processed, Tensor):
        dimensions = {clean.ndim, processed.ndim}
        if dimensions != {2}:
            raise ValueError(
                f"sounds must be (B, T), got {tuple(clean.shape)}, {tuple(processed.shape)}"
            )
    if len(clean) != len(processed):
        raise ValueError(
            f"{len(clean)} clean and {len(processed)} processed sounds; match them first"
        )
    values, reasons, notes = [], [], []
    for pair in zip(clean, processed, strict=True):
        value, note = math.nan, None
        reason = _obstacle(*pair, sample_rate, shortest_s, longest_s)
        if reason is None:
            try:
                with _repeatable(seed):
                    ready = (sound.detach().cpu().double() for sound in pair)
                    result = metric(
                        *(resample(s, sample_rate, rate_hz or sample_rate) for s in ready)
                    )
                value, note = result if isinstance(result, tuple) else (result, None)
                value = float(value)
            except (ImportError, ValueError) as error:
                reason = str(error)
            except Exception as error:  # other people's programs raise whatever they like
                reason = f"{type(error).__name__}: {error}"
            else:
                reason = None if math.isfinite(value) else f"the result is {value}"
        values.append(value if reason is None else math.nan)
        reasons.append(reason)
        notes.append(note if reason is None else None)
    return Score(torch.tensor(values, dtype=torch.float64), tuple(reasons), tuple(notes))


def obstacle(clean: Tensor, processed: Tensor) -> str | None:
    """What keeps two sounds `(T,)`, of whatever lengths, from being compared."""
    for name, sound in (("clean", clean), ("processed", processed)):
        if not bool(sound.isfinite().all()):
            return f"{name} has samples that are NaN or infinite"
        if not bool(sound.any()):
            return f"{name} is silent"
    return None


def _obstacle(
    clean: Tensor, processed: Tensor, sample_rate: float, shortest_s: float, longest_s: float
) -> str | None:
    """What keeps a pair from being scored, whatever the metric."""
    if clean.ndim != 1 or clean.shape != processed.shape:
        return f"shapes differ: clean {tuple(clean.shape)}, processed {tuple(processed.shape)}"
    if reason := obstacle(clean, processed):
        return reason
    # A fraction of a sample does not decide: 24414 samples at 24414.0625 Hz are a second.
    duration_s, sample_s = len(clean) / sample_rate, 1 / sample_rate
    if duration_s <= shortest_s - sample_s:
        return f"{duration_s:.3g} s is too short: at least {shortest_s:g} s are needed"
    if duration_s >= longest_s + sample_s:
        return f"{duration_s:.4g} s is too long: cut it to {longest_s:g} s at most"
    return None


@contextlib.contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator for a while; a warning that a result is void is an error."""
    state = np.random.get_state()  # noqa: NPY002, the metrics draw from this one
    np.random.seed(seed)  # noqa: NPY002
    try:
        # Division by zero inside a metric is not an error: a result that is not finite is.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error", RuntimeWarning)
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def rows(device: str, files: Sequence[str], scores: Mapping[str, Score]) -> list[Row]:
    """One row a file: device, file, each score (None if missing), and why any is missing.

    >>> rows("aid", ["a.wav"], {"stoi": Score(torch.tensor([0.5]), (None,))})
    [{'device': 'aid', 'file': 'a.wav', 'stoi': 0.5, 'missing': ''}]
    """
    for name, score in scores.items():
        if len(score.reasons) != len(files):
            raise ValueError(f"{name} has {len(score.reasons)} values for {len(files)} files")
    table = []
    for index, file in enumerate(files):
        reasons = {name: score.reasons[index] for name, score in scores.items()}
        # Six digits are more than any of these scores means.
        values = {name: float(f"{score.values[index]:.6g}") for name, score in scores.items()}
        shown = {name: None if reasons[name] else value for name, value in values.items()}
        missing = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        table.append({"device": device, "file": file, **shown, "missing": missing})
    return table


def bootstrap(
    samples: Tensor,
    statistic: Callable[[Tensor], Tensor] = lambda drawn: drawn.mean(1),
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic. Source: Efron & Tibshirani 1993, ch. 13.

    Args:
        samples: One a file, `(S,)` or `(S, K)`.
        statistic: From drawn samples `(R, S)` or `(R, S, K)` to `(R,)`; the mean by default.
        confidence: Coverage wanted.
        resamples: R.
        seed: Of the draws.

    Returns:
        Lower and upper end; NaN for fewer than two samples, which show no spread.
    """
    count = len(samples)
    if count < 2:
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    results = statistic(samples.detach().cpu().double()[drawn])
    tail = (1 - confidence) / 2
    low, high = results.quantile(torch.tensor([tail, 1 - tail], dtype=results.dtype)).tolist()
    return low, high


def summarise(table: Sequence[Row], confidence: float = 0.95, seed: int = 0) -> list[Row]:
    """One row for each device and score: mean over files, bootstrap interval, files, missing."""
    summary = []
    for device in dict.fromkeys(row["device"] for row in table):
        of_device = [row for row in table if row["device"] == device]
        for name in dict.fromkeys(key for row in of_device for key in row if key not in LABELS):
            values = [float(value) for row in of_device if (value := row.get(name)) is not None]
            low, high = bootstrap(torch.tensor(values), confidence=confidence, seed=seed)
            numbers = {
                "mean": sum(values) / len(values) if values else math.nan,
                "low": low,
                "high": high,
            }
            counts = {"files": len(values), "missing": len(of_device) - len(values)}
            summary.append({"device": device, "score": name, **_shown(numbers), **counts})
    return summary


def _shown(numbers: Mapping[str, float]) -> Row:
    """Six digits of each number, None for NaN."""
    return {key: None if math.isnan(x) else float(f"{x:.6g}") for key, x in numbers.items()}


def markdown(summary: Sequence[Row]) -> str:
    """The summary as a Markdown table: devices down, scores across, mean [interval] (files)."""
    devices, names = (
        list(dict.fromkeys(row[key] for row in summary)) for key in ("device", "score")
    )
    cells = {(row["device"], row["score"]): _cell(row) for row in summary}
    lines = [["device", *map(str, names)], ["---"] + ["---:"] * len(names)]
    lines += [
        [str(device), *(cells.get((device, name), "–") for name in names)] for device in devices
    ]
    return "".join("| " + " | ".join(line).replace("\n", " ") + " |\n" for line in lines)


def _cell(row: Row) -> str:
    if row["mean"] is None:
        return "missing"
    interval = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return f"{row['mean']:.3g}{interval} ({row['files']})"


def write_csv(path: str | Path, table: Sequence[Row]) -> None:
    """Write rows as CSV; a column for every key of any row, empty where missing.

    Text that a spreadsheet would run as a formula, such as a file called `=1+1`, gets an apostrophe
    in front: it is shown as it is and computes nothing. JSON has it without.
    """
    columns = list(dict.fromkeys(key for row in table for key in row))
    with whole_file(path) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: inert(value) for key, value in row.items()} for row in table)


def inert(cell: str | float | None) -> str | float | None:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers.

    Source: OWASP, CSV injection.

    >>> inert("=1+1"), inert("a=b"), inert(-1.5)
    ("'=1+1", 'a=b', -1.5)
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell
