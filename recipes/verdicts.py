"""What a good demo would show, and whether this one does: judgements computed from its results.

Every function takes numbers and says in words what was wanted, whether it holds, and by which
numbers. Bounds are chosen here.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from torch import Tensor

CLOSE = 0.75
"""Share of the known animals' FEVE that new ones should reach."""

CLEARLY_APART = 3.0
"""Distance of two animals in θ-space, in units of their uncertainty, that is no chance."""

RISES_BY = 0.005
"""Share of its lowest value by which a validation error may exceed it at the end."""

FOLLOWS_WITHIN = 0.15
"""Largest error of a mean response, as a share of the largest true one."""

FRACTION_OF_AN_OCTAVE = 0.25

WELL_BELOW_ONE = 0.75
"""What should be left at most of a discrepancy."""

LOST_DB_HL = 15.0
"""Threshold from which a frequency counts as lost [dB HL]."""

AUDIBLY_MORE_DB = 1.0

OPINION_WITHIN = 0.1
"""By how much the model may think better of an aid than the true midbrains do, in restoration."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a result is as a good one would be."""

    wanted: str
    """What a good result shows, to be read after "Good:"."""
    holds: bool | None
    """Whether this one does; None if its data cannot say."""
    numbers: str
    """What the data say."""


def close_to_known(known: Sequence[float], new: Sequence[float]) -> Verdict:
    """FEVE of new animals beside that of known ones."""
    wanted = f"new animals reach at least {CLOSE:g} of the known ones' FEVE (medians)"
    if not known or not new:
        return Verdict(wanted, None, "FEVE is missing")
    theirs, ours = statistics.median(new), statistics.median(known)
    numbers = f"{_number(theirs)} against {_number(ours)}"
    if ours <= 0:
        return Verdict(wanted, None, numbers)
    return Verdict(wanted, theirs >= CLOSE * ours, f"{numbers}, {_number(theirs / ours)} of it")


def neighbours(
    theta: Mapping[str, Tensor], hearing: Mapping[str, str], new: Sequence[str]
) -> list[Verdict]:
    """Who lies beside whom in θ-space.

    Args:
        theta: Of every animal, `(P,)`.
        hearing: NH, HI or hidden, of each.
        new: Animals that the model was not trained on.
    """
    known = [name for name in theta if name not in new]
    normal = [name for name in known if hearing[name] == "NH"]
    impaired = [name for name in known if hearing[name] != "NH"]

    def nearest(name: str, among: Sequence[str]) -> tuple[float, str] | None:
        return min(
            (
                ((theta[name] - theta[other]).norm().item(), other)
                for other in among
                if other != name
            ),
            default=None,
        )

    verdicts = []
    wanted = "the known animal nearest to each one with normal hearing hears normally, too"
    beside = {name: nearest(name, known) for name in normal}
    if len(normal) < 2:
        verdicts.append(Verdict(wanted, None, "there are fewer than two"))
    else:
        holds = all(hearing[other] == "NH" for _, other in beside.values())
        verdicts.append(Verdict(wanted, holds, _pairs(beside)))
    wanted = (
        "every known animal with a loss lies further from those with normal hearing than any of "
        "these from the next one"
    )
    if len(normal) < 2 or not impaired:
        verdicts.append(Verdict(wanted, None, "too few animals"))
    else:
        within = max(nearest(name, normal)[0] for name in normal)
        apart = {name: nearest(name, normal) for name in impaired}
        holds = min(distance for distance, _ in apart.values()) > within
        numbers = f"{_pairs(apart)}; between normal ones at most {_number(within)}"
        verdicts.append(Verdict(wanted, holds, numbers))
    wanted = "the known animal nearest to each new one has the same kind of hearing"
    answerable = [n for n in new if hearing[n] in {hearing[k] for k in known}]
    beside = {name: nearest(name, known) for name in new}
    if not answerable:
        verdicts.append(Verdict(wanted, None, "no known animal has the kind of any new one"))
    else:
        holds = all(hearing[beside[name][1]] == hearing[name] for name in answerable)
        verdicts.append(Verdict(wanted, holds, _pairs(beside)))
    return verdicts


def learned(history: Sequence[Mapping[str, float]]) -> list[Verdict]:
    """How the training of the model went, by its epochs."""
    errors = [record["cross_entropy"] for record in history]
    validation = [record["validation"] for record in history]
    lowest = min(validation)
    least = validation.index(lowest)
    verdicts = [
        Verdict(
            "both errors fall",
            errors[-1] < errors[0] and lowest < validation[0],
            f"in training from {errors[0]:.3f} to {errors[-1]:.3f}, on other sounds from "
            f"{validation[0]:.3f} to {lowest:.3f}",
        ),
        Verdict(
            "the validation error does not rise again, which would be learning by heart",
            validation[-1] <= (1 + RISES_BY) * lowest,
            f"lowest in epoch {least + 1} of {len(validation)}; at the end "
            f"{100 * (validation[-1] / lowest - 1):.1f} % above that",
        ),
    ]
    wanted = f"animals end at least {CLEARLY_APART:g} uncertainties apart"
    separation = history[-1].get("separation")
    if separation is None:
        return [*verdicts, Verdict(wanted, None, "there is one animal")]
    return [*verdicts, Verdict(wanted, separation >= CLEARLY_APART, f"{separation:.1f}")]


def follows(curves: Mapping[str, tuple[Tensor, Tensor]]) -> Verdict:
    """Mean responses over level, predicted and true `(L,)`, by animal."""
    errors = {
        name: ((predicted - true).abs().max() / true.abs().max().clamp(min=1e-9)).item()
        for name, (predicted, true) in curves.items()
    }
    numbers = ", ".join(f"{name} {100 * error:.0f} %" for name, error in errors.items())
    return Verdict(
        f"the model is nowhere further than {100 * FOLLOWS_WITHIN:.0f} % of the largest true "
        "response from the truth",
        all(error <= FOLLOWS_WITHIN for error in errors.values()),
        numbers,
    )


def worth_fitting(fits: Sequence[Mapping]) -> Verdict:
    """FEVE with the fitted θ beside that with the θ of normal hearing."""
    wanted = "the fitted θ predicts better than that of normal hearing"
    both = [f for f in fits if f["feve"] is not None and f["feve_as_normal"] is not None]
    if not both:
        return Verdict(wanted, None, "FEVE is missing")
    numbers = ", ".join(
        f"{f['animal']} {_number(f['feve'])} against {_number(f['feve_as_normal'])}" for f in both
    )
    return Verdict(wanted, all(f["feve"] > f["feve_as_normal"] for f in both), numbers)


def aligned(before_octaves: float, after_octaves: float) -> Verdict:
    """Median errors of matched channels."""
    return Verdict(
        f"the error after alignment is at most {FRACTION_OF_AN_OCTAVE:g} octaves, and smaller than "
        "before",
        after_octaves <= FRACTION_OF_AN_OCTAVE and after_octaves < before_octaves,
        f"{_number(after_octaves)} octaves after, {_number(before_octaves)} before",
    )


def gained(history: Sequence[Mapping[str, float | None]], recent: int) -> Verdict:
    """What the aid's training leaves of its discrepancies, mean over the last steps."""
    left = {}
    for name in ("compensation", "denoising"):
        values = [r[name] for r in history[-recent:] if r.get(name) is not None]
        if values:
            left[name] = statistics.fmean(values)
    wanted = f"at the end at most {WELL_BELOW_ONE:g} of each discrepancy is left"
    numbers = ", ".join(f"{_number(value)} of {name}" for name, value in left.items())
    holds = all(value <= WELL_BELOW_ONE for value in left.values()) if len(left) == 2 else None
    return Verdict(wanted, holds, numbers)


def compresses(
    gains_db: Mapping[str, Tensor], thresholds_db_hl: Mapping[str, Tensor], levels: Sequence[float]
) -> Verdict:
    """Whether soft sounds gain most where sensitivity is lost.

    Args:
        gains_db: By listener, `(L, F)` for speech at every level.
        thresholds_db_hl: By listener, at the same frequencies, `(F,)`.
        levels: Of the speech, ascending [dB SPL], `(L,)`.
    """
    soft, loud = levels[0], levels[-1]
    wanted = (
        f"where at least {LOST_DB_HL:g} dB are lost, the aid gives at least {AUDIBLY_MORE_DB:g} dB "
        f"more gain at {soft:g} than at {loud:g} dB SPL"
    )
    numbers, holds = [], []
    for name, gains in gains_db.items():
        lost = thresholds_db_hl[name] >= LOST_DB_HL
        if not bool(lost.any()):
            numbers.append(f"{name} has lost so much nowhere")
            continue
        first, last = (gains[place, lost].mean().item() for place in (0, -1))
        numbers.append(f"{name} {first:.1f} dB and {last:.1f} dB")
        holds.append(first >= last + AUDIBLY_MORE_DB)
    return Verdict(wanted, all(holds) if holds else None, "; ".join(numbers))


def stands_out(contrasts_db: Mapping[str, float], ours: str, other: str) -> Verdict:
    """Level of speech over that of its pauses, by device."""
    numbers = ", ".join(f"{device} {value:.1f} dB" for device, value in contrasts_db.items())
    return Verdict(
        f"speech stands out of its pauses by at least {AUDIBLY_MORE_DB:g} dB more with {ours} than "
        f"with {other}",
        contrasts_db[ours] >= contrasts_db[other] + AUDIBLY_MORE_DB,
        numbers,
    )


def restores_most(
    restorations: Mapping[str, Mapping[str, float | None]], ours: str, others: Sequence[str]
) -> Verdict:
    """Whether an aid restores more than nothing and than every other device, listener by listener.

    Args:
        restorations: By listener and device; None if missing.
        ours: The device in question.
        others: Devices that it is compared with.
    """
    wanted = f"{ours} restores more than no aid" + "".join(f" and than {name}" for name in others)
    holds, numbers = [], []
    for listener, by_device in restorations.items():
        shown = [f"{device} {_number(by_device[device])}" for device in (ours, *others)]
        numbers.append(f"{listener}: {', '.join(shown)}")
        if by_device[ours] is not None:
            least = max(0.0, *(by_device[d] for d in others if by_device[d] is not None))
            holds.append(by_device[ours] > least)
    return Verdict(wanted, all(holds) if holds else None, "; ".join(numbers))


def opinion(truth: Mapping[str, float | None], model: Mapping[str, float | None]) -> Verdict:
    """Restoration by the aid on true midbrains and in the model's opinion, by listener."""
    both = {n: (truth[n], model[n]) for n in truth if None not in (truth[n], model[n])}
    numbers = "; ".join(
        f"{n} {_number(t)} true, {_number(m)} by the model" for n, (t, m) in both.items()
    )
    return Verdict(
        f"the model thinks no more than {OPINION_WITHIN:g} better of the aid than the true "
        "midbrain does; more would mean that the aid exploits errors of the model",
        all(m - t <= OPINION_WITHIN for t, m in both.values()) if both else None,
        numbers or "one of the two is missing",
    )


def speech_over_pauses_db(sound: Tensor, clean: Tensor, frame: int = 256) -> float:
    """Level of a sound where clean speech is loud, less that where it pauses [dB].

    Loud: frames within 10 dB of the loudest tenth; pauses: those more than 30 dB below it.

    Args:
        sound: `(T,)`.
        clean: The speech in it, `(T,)`.
        frame: Samples.
    """
    power, speech = (
        x[: len(x) // frame * frame].reshape(-1, frame).square().mean(1) for x in (sound, clean)
    )
    top = speech.quantile(0.9)
    loud, pause = speech > 0.1 * top, speech < 1e-3 * top
    if not bool(pause.any()):
        pause = speech <= speech.quantile(0.1)
    return 10 * (power[loud].mean() / power[pause].mean().clamp(min=1e-20)).log10().item()


def _pairs(beside: Mapping[str, tuple[float, str]]) -> str:
    return ", ".join(
        f"{name} to {other} {_number(distance)}" for name, (distance, other) in beside.items()
    )


def _number(value: float | None) -> str:
    if value is None:
        return "missing"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")
