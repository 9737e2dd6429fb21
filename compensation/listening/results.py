"""What a session has found: for the experimenter's page, and as files."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Literal

from .session import Session, Trial, answer_of

NORMAL_95 = 1.96
"""Standard deviations of a 95 % interval."""

CHANCE = 1 / 3, 1 / 2
"""Share of catch trials answered alike by who answers at random, with and without "same"."""

Verdict = Literal["confirmed", "not confirmed", "cannot be told"]
"""Whether listeners who do not know which is which prefer what was fitted."""

COLUMNS = (
    "listener", "event", "answered_at", "undone", "trial", "part", "against", "sound", "mode",
    "first", "second", "swapped", "catch", "fallback", "choice", "answer", "seconds", "switches",
)  # fmt: skip


def overview(session: Session) -> dict:
    """Everything that the experimenter's page shows."""
    settings, trials = session.settings, session.trials
    answered = [t for t in trials if t.answer is not None]
    parts = ("comparison", "confirmation")
    fitted, confirmed = (
        [(t.number, t.estimate) for t in trials if t.part == part and t.estimate] for part in parts
    )
    course = [
        {"answers": number, **estimate, "consistency": consistency(session, number)}
        for number, estimate in fitted + confirmed[:1]
    ]
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
        **outcome(session),
    }


def outcome(session: Session) -> dict:
    """How far a session's θ can be trusted, in numbers and in sentences."""
    settings = session.settings
    repeats, stop = consistency(session), stopping(session)
    rows = confirmation(session.trials, settings.reference, settings.confirmations)
    overall = verdict(rows)
    return {
        "consistency": repeats,
        "stopping": stop,
        "confirmation": rows,
        "verdict": overall,
        "sentences": [
            *([_said_of_catch_trials(repeats)] if repeats["catch_trials"] else []),
            _said_of_stopping(stop),
            *(_said_of_confirmation(row) for row in rows),
            f"Blind confirmation as a whole: {overall}.",
        ],
    }


def consistency(session: Session, answers: int | None = None) -> dict:
    """How many catch trials were answered as the same pair was before.

    Args:
        session: Whose.
        answers: To the first comparisons that are looked at; None for all.
    """
    comparisons = session.course().comparisons[:answers]
    alike, count = session.algorithm.catch_trials(comparisons)
    return {"catch_trials": count, "alike": alike, **_share(alike, count)}


def stopping(session: Session) -> dict:
    """What the search still had to gain when it ended, or has now, beside what ends it."""
    algorithm, most = session.algorithm, session.settings.comparisons
    answers = len(session.course().comparisons)
    best = session.best() if session.finishing else None
    if best is None:  # as of the last pair: to compute it anew takes time
        gains = [t.estimate["gain"] for t in session.trials if t.estimate]
        gain = gains[-1] if gains else None
    else:
        gain = best["gain"]
    if not session.finishing:
        reason = "goes on"
    elif gain is not None and gain < algorithm.NEGLIGIBLE:
        reason = "as too little was left to gain"
    else:
        reason = "the most that were planned"
    return {
        "reason": reason,
        "answers": answers,
        "least_answers": min(most, algorithm.LEAST_ANSWERS),
        "most_answers": most,
        "gain": gain,
        "threshold": algorithm.NEGLIGIBLE,
    }


def confirmation(trials: Sequence[Trial], reference: str, planned: int) -> list[dict]:
    """How often the best θ was preferred, beside the start and beside the reference.

    Args:
        trials: Of a session.
        reference: What the reference is called.
        planned: Comparisons with each.

    Returns:
        For each the counts; of the answers that decided, the share with its 95 % interval; and the
        verdict. It is confirmed where the interval lies above a half. Where not, it cannot be told
        while answers are missing, or where the best is not behind and so few answers decided that
        not even all of them could have confirmed it.
    """
    rows = []
    for against in ("start", "reference"):
        answers = [t.answer for t in trials if t.against == against and t.answer is not None]
        best, other = answers.count("first"), answers.count("second")
        decided = best + other
        shares = _share(best, decided)
        too_few = not decided or wilson(decided, decided)[0] <= 0.5
        if len(answers) < planned or (too_few and best >= other):
            verdict: Verdict = "cannot be told"
        else:
            verdict = "confirmed" if shares["interval"][0] > 0.5 else "not confirmed"
        rows.append(
            {
                "against": reference if against == "reference" else "start",
                "planned": planned,
                "answered": len(answers),
                "best": best,
                "other": other,
                "same": answers.count("same"),
                **shares,
                "verdict": verdict,
            }
        )
    return rows


def verdict(rows: Sequence[dict]) -> Verdict:
    """Of a whole confirmation: confirmed if each of its rows is, not confirmed if one is not.

    All have to be, so that the chance of a wrong "confirmed" is no larger than that of one row.
    """
    each = {row["verdict"] for row in rows}
    if "not confirmed" in each:
        return "not confirmed"
    return "confirmed" if each == {"confirmed"} else "cannot be told"


def _share(part: int, count: int) -> dict:
    """A share with its 95 % interval, if there is anything to share."""
    if not count:
        return {"share": None, "interval": None}
    return {"share": part / count, "interval": wilson(part, count)}


def _said_of_catch_trials(repeats: dict) -> str:
    return (
        f"{repeats['alike']} of {repeats['catch_trials']} repeated pairs were answered alike "
        f"({_interval(repeats)}; at random: {_percent(*CHANCE)})."
    )


def _said_of_stopping(stop: dict) -> str:
    gain = "unknown" if stop["gain"] is None else f"{stop['gain']:.2f}"
    left = f"left to gain {gain}, threshold {stop['threshold']:.2f}"
    if stop["reason"] == "goes on":
        least, most = stop["least_answers"], stop["most_answers"]
        return f"The search goes on: {stop['answers']} of {least} to {most} answers; {left}."
    return f"The search ended after {stop['answers']} answers, {stop['reason']}: {left}."


def _said_of_confirmation(row: dict) -> str:
    against = "the start" if row["against"] == "start" else row["against"]
    decided = row["best"] + row["other"]
    counts = f"preferred in {row['best']} of {decided} answers that decided"
    if decided:
        counts += f", {_interval(row)}"
    if row["answered"] < row["planned"]:
        counts = f"{row['answered']} of {row['planned']} pairs answered: {counts}"
    if not row["planned"]:
        counts = "no pair was asked for"
    return f"Blind, against {against}: {row['verdict']} ({counts})."


def _interval(share: dict) -> str:
    return f"95 % interval {_percent(*share['interval'])}"


def _percent(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def wilson(successes: int, count: int) -> tuple[float, float]:
    """95 % interval of a share.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22:209-212.

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
        "answers": sum(t.part == "comparison" and t.answer is not None for t in session.trials),
        "finished": session.ended,
        "method": f"by ear, {settings.mode} mode",
        **outcome(session),
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
            listened = content["heard"]
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
                    "seconds": listened.get("seconds", ""),
                    "switches": listened.get("switches", ""),
                }
            )
        elif event.kind == "undo":
            last = next(r for r in reversed(rows) if r["trial"] == content["trial"])
            last["undone"] = 1
    return rows


def _numbers(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:.6g}" for value in values or ())
