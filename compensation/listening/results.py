"""What a session has found: for the experimenter's page, and as files."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from .session import Session, Trial, answer_of

NORMAL_95 = 1.96
"""Standard deviations of a 95 % interval."""

COLUMNS = (
    "listener", "event", "answered_at", "undone", "trial", "part", "against", "sound", "mode",
    "first", "second", "swapped", "catch", "fallback", "choice", "answer", "seconds", "switches",
)  # fmt: skip


def overview(session: Session) -> dict:
    """Everything that the experimenter's page shows."""
    settings, trials = session.settings, session.trials
    answered = [t for t in trials if t.answer is not None]
    course = [
        {"answers": t.number, **t.estimate} for t in trials if t.part == "comparison" and t.estimate
    ]
    ends = [t for t in trials if t.part == "confirmation"][:1]
    if ends and ends[0].estimate:
        course.append({"answers": ends[0].number, **ends[0].estimate})
    return {
        "listener": settings.listener,
        "stage": "end" if session.ended else "running" if session.consented else "consent",
        "mode": settings.mode,
        "calibration": settings.calibration,
        "full_scale_db_spl": settings.full_scale_db_spl,
        "maximum_db_spl": min(settings.maximum_db_spl, settings.full_scale_db_spl),
        "reference": settings.reference,
        "comparisons": sum(t.part == "comparison" for t in answered),
        "most_comparisons": settings.comparisons,
        "same": sum(t.answer == "same" for t in answered if t.part == "comparison"),
        "fallbacks": sum(t.fallback for t in trials),
        "faults": [
            {"at": e.at, "what": e.content["what"]} for e in session.events if e.kind == "fault"
        ],
        "known": settings.known,
        "start": settings.start,
        "course": course,
        "confirmation": confirmation(trials, settings.reference),
    }


def confirmation(trials: Sequence[Trial], reference: str) -> list[dict]:
    """How often the best θ was preferred, beside the start and beside the reference.

    Of the answers that decided, the share with its 95 % interval.

    Source: the interval is Wilson 1927, J. Am. Stat. Assoc. 22:209-212.
    """
    found = []
    for against in ("start", "reference"):
        answers = [t.answer for t in trials if t.against == against and t.answer is not None]
        best, other = answers.count("first"), answers.count("second")
        share, interval = None, None
        if best + other:
            share, interval = best / (best + other), wilson(best, best + other)
        found.append(
            {
                "against": reference if against == "reference" else "start",
                "best": best,
                "other": other,
                "same": answers.count("same"),
                "share": share,
                "interval": interval,
            }
        )
    return found


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share.

    >>> [round(value, 2) for value in wilson(9, 10)]
    [0.6, 0.98]
    """
    share, spread = successes / count, NORMAL_95**2 / count
    middle = share + spread / 2
    half = NORMAL_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def theta(session: Session) -> dict | None:
    """θ as `recipes.process --theta` takes it; None before the first answer."""
    best = session.best()
    if best is None:
        return None
    settings = session.settings
    return {
        # As fits of animals have it, so that every recipe takes this one too.
        "animal": settings.listener,
        "model": settings.model,
        "aid": settings.aid,
        "theta": best["theta"],
        "deviation": best["deviation"],
        "consistency": best["consistency"],
        "answers": sum(t.part == "comparison" and t.answer is not None for t in session.trials),
        "finished": session.ended,
        "method": f"by ear, {settings.mode} mode",
    }


def everything(session: Session) -> dict:
    """The whole session, for programs."""
    return {
        "overview": overview(session),
        "settings": dataclasses.asdict(session.settings),
        "course": session.algorithm.to_dict(session.course()),
        "theta": theta(session),
        "trials": [dataclasses.asdict(trial) for trial in session.trials],
        "events": [dataclasses.asdict(event) for event in session.events],
    }


def table(session: Session) -> str:
    """One row for each answer, those taken back among them, as CSV."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    writer.writerows(_rows(session))
    return file.getvalue()


def _rows(session: Session) -> list[dict]:
    shown: dict[int, dict] = {}
    rows: list[dict] = []
    for event in session.events:
        content = event.content
        if event.kind == "shown":
            shown[content["number"]] = content
        elif event.kind == "answer":
            trial = shown[content["trial"]]
            heard = content["heard"]
            rows.append(
                {
                    "listener": session.settings.listener,
                    "event": event.number,
                    "answered_at": event.at,
                    "undone": 0,
                    "trial": trial["number"],
                    "part": trial["part"],
                    "against": trial["against"] or "",
                    "sound": session.settings.sounds[trial["sound"]],
                    "mode": session.settings.mode,
                    "first": _numbers(trial["first"]),
                    "second": _numbers(trial["second"]) or session.settings.reference,
                    "swapped": int(trial["swapped"]),
                    "catch": int(trial["catch"]),
                    "fallback": int(trial["fallback"]),
                    "choice": content["choice"],
                    "answer": answer_of(content["choice"], trial["swapped"]),
                    "seconds": heard.get("seconds", ""),
                    "switches": heard.get("switches", ""),
                }
            )
        elif event.kind == "undo":
            last = next(r for r in reversed(rows) if r["trial"] == content["trial"])
            last["undone"] = 1
    return rows


def _numbers(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:.6g}" for value in values or ())
