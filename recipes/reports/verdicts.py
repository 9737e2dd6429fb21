"""What a good demo would show, and whether this one does: judgements computed from its results.

Every function takes numbers and says in words what was wanted, whether it holds, and by which
numbers. Bounds are chosen here. What compares devices, or animals, has an interval
(`evaluation.comparison`), and where that lies on both sides, or few sounds or animals made it,
nothing is said.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from evaluation.comparison import (
    CANNOT_BE_TOLD,
    FEWEST_LISTENERS,
    FEWEST_SOUNDS_OF_ONE,
    Comparison,
    Resampled,
    difference,
    resample,
)
from recipes.reports.tables import number

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
"""How far the model's opinion of an aid may lie from the truth, either way, in restoration."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a result is as a good one would be."""

    wanted: str
    """What a good result shows, to be read after "Good:"."""
    holds: bool | None
    """Whether this one does; None if its data cannot say."""
    numbers: str
    """What the data say."""


def close_to_known(seen: Sequence[float], new: Sequence[float]) -> Verdict:
    """Mean FEVE of new animals beside that of known ones, with an interval over animals."""
    wanted = f"new animals reach at least {CLOSE:g} of the known ones' FEVE (means)"
    if not seen or not new:
        return Verdict(wanted, None, "FEVE is missing")
    theirs, ours = (_animals(values, n).mean()[:, 0] for n, values in enumerate((new, seen)))
    numbers = (
        f"{_number(theirs[0].item())} (n = {len(new)}) against {_number(ours[0].item())} "
        f"(n = {len(seen)})"
    )
    if ours[0] <= 0:
        return Verdict(wanted, None, numbers)
    share = _animals(new, 0).comparison(theirs / ours, bound=CLOSE)
    numbers += f", {_with_interval(share)} of it"
    if len(seen) < FEWEST_LISTENERS:
        return Verdict(wanted, None, numbers)
    return Verdict(wanted, _holds([share.verdict]), numbers)


def neighbours(
    theta: Mapping[str, Tensor], hearing: Mapping[str, str], new: Sequence[str]
) -> list[Verdict]:
    """Who lies beside whom in θ-space.

    Args:
        theta: Of every animal, `(P,)`.
        hearing: NH, HI or hidden, of each.
        new: Animals that the model was not trained on.
    """
    seen = [name for name in theta if name not in new]
    normal = [name for name in seen if hearing[name] == "NH"]
    impaired = [name for name in seen if hearing[name] != "NH"]

    def nearest(name: str, among: Sequence[str]) -> tuple[float, str]:
        return min(
            ((theta[name] - theta[other]).norm().item(), other) for other in among if other != name
        )

    verdicts = []
    wanted = "the known animal nearest to each one with normal hearing hears normally, too"
    if len(normal) < 2:
        verdicts.append(Verdict(wanted, None, "there are fewer than two"))
    else:
        beside = {name: nearest(name, seen) for name in normal}
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
    answerable = [n for n in new if hearing[n] in {hearing[k] for k in seen}]
    if not answerable:
        verdicts.append(Verdict(wanted, None, "no known animal has the kind of any new one"))
    else:
        beside = {name: nearest(name, seen) for name in new}
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


def worth_fitting(
    feve: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[Hashable]]],
) -> Verdict:
    """FEVE with the fitted θ beside that with the θ of normal hearing, sound by sound.

    Args:
        feve: By animal: of each test sound with the fitted θ, the same with the other θ, and whose
            or what each sound is.
    """
    wanted = "the fitted θ predicts every new animal better than that of normal hearing"
    gained_feve = {}
    for animal, (fitted, normal, sources) in feve.items():
        if fitted:
            alone, ones = [0] * len(fitted), torch.ones(len(fitted))
            pair = torch.tensor([normal, fitted])
            gained_feve[animal] = difference(pair, ones, alone, alone, sources)
    if not gained_feve:
        return Verdict(wanted, None, "FEVE is missing")
    numbers = "; ".join(f"{animal} {_compared(one)}" for animal, one in gained_feve.items())
    return Verdict(wanted, _holds([one.verdict for one in gained_feve.values()]), numbers)


def aligned(before_octaves: float | None, after_octaves: float | None) -> Verdict:
    """Median errors of matched channels; None where no animal was matched."""
    wanted = f"the error after alignment is at most {FRACTION_OF_AN_OCTAVE:g} octaves, and smaller "
    wanted += "than before"
    if before_octaves is None or after_octaves is None:
        return Verdict(wanted, None, "no animal was matched")
    return Verdict(
        wanted,
        after_octaves <= FRACTION_OF_AN_OCTAVE and after_octaves < before_octaves,
        f"{_number(after_octaves)} octaves after, {_number(before_octaves)} before",
    )


def gained(history: Sequence[Mapping[str, float | None]], recent: int) -> Verdict:
    """What the aid's training leaves of its discrepancies, mean over the last steps."""
    left = {}
    for name in ("compensation", "denoising"):
        values = [v for record in history[-recent:] if (v := record.get(name)) is not None]
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


def stands_out(
    contrasts_db: Mapping[str, Sequence[float]],
    voices: Sequence[Hashable],
    ours: str,
    other: str,
) -> Verdict:
    """Level of speech over that of its pauses, by device, sentence by sentence.

    Args:
        contrasts_db: Of each sentence, by device.
        voices: Whose each sentence is.
        ours: The device in question.
        other: The one that it is compared with.
    """
    numbers = ", ".join(
        f"{device} {statistics.fmean(values):.1f} dB" for device, values in contrasts_db.items()
    )
    pair = torch.tensor([contrasts_db[other], contrasts_db[ours]])
    alone = [0] * len(voices)
    more = difference(pair, torch.ones(1), alone, alone, voices, bound=AUDIBLY_MORE_DB)
    return Verdict(
        f"speech stands out of its pauses by at least {AUDIBLY_MORE_DB:g} dB more with {ours} than "
        f"with {other}",
        _holds([more.verdict]),
        f"{numbers} on average; {_compared(more, 'dB more')}",
    )


def restores_most(
    less: Mapping[str, Mapping[str, Comparison | None]], others: Sequence[str], ours: str
) -> Verdict:
    """Whether an aid restores more than nothing and than other devices, listener by listener.

    Args:
        less: The aid less each other device, by listener and a reader's name of the device.
        others: Readers' names of all devices that it is compared with.
        ours: A reader's name of the device in question.
    """
    wanted = f"for every listener {ours} restores more than {_listed(others)}"
    numbers, verdicts = [], []
    for listener, by_device in less.items():
        compared = {label: one for label, one in by_device.items() if one is not None}
        if not compared:
            continue
        said = [
            f"{_with_interval(one, signed=True)} to {n}, {one.verdict}"
            for n, one in compared.items()
        ]
        sounds = next(iter(compared.values())).sounds
        numbers.append(f"{listener} (n = {sounds} sounds): {', '.join(said)}")
        verdicts += [one.verdict for one in compared.values()]
    if not verdicts:
        return Verdict(wanted, None, "nothing could be compared")
    return Verdict(wanted, _holds(verdicts), "; ".join(numbers))


def opinion(gaps: Mapping[str, Comparison]) -> Verdict:
    """How far the model's opinion of an aid lies from what the true midbrains say.

    Args:
        gaps: The model's less the truth's, of one measure and device, by listener.
    """
    wanted = (
        f"the model's opinion of the aid lies within {OPINION_WITHIN:g} of the truth for every "
        "listener; more would mean that the aid exploits errors of the model, less that it "
        "leaves something undone"
    )
    if not gaps:
        return Verdict(wanted, None, "one of the two is missing")
    numbers = "; ".join(
        f"{name} {_with_interval(one, signed=True)} (n = {one.sounds} sounds)"
        for name, one in gaps.items()
    )
    magnitudes = [abs(one.estimate) for one in gaps.values()]
    numbers += f"; mean of magnitudes {_number(statistics.fmean(magnitudes))}"
    return Verdict(wanted, _holds(list(map(_within, gaps.values()))), numbers)


def _within(one: Comparison) -> str:
    """Whether a gap is small either way: both of "not above" and "not below" have to be told."""
    if one.sounds < FEWEST_SOUNDS_OF_ONE or math.isnan(one.low):
        return CANNOT_BE_TOLD
    if one.low >= -OPINION_WITHIN and one.high <= OPINION_WITHIN:
        return "better"
    outside = one.low > OPINION_WITHIN or one.high < -OPINION_WITHIN
    return "worse" if outside else CANNOT_BE_TOLD


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


def _animals(values: Sequence[float], seed: int) -> Resampled:
    """Draws of animals of which there is one value each."""
    count = len(values)
    return resample(
        torch.tensor([values]), torch.ones(count), [0] * count, range(count), None, seed=seed
    )


def _holds(verdicts: Sequence[str]) -> bool | None:
    """Whether all are better; None if none is worse and one cannot be told."""
    if "worse" in verdicts:
        return False
    return True if set(verdicts) == {"better"} else None


def _compared(one: Comparison, unit: str = "more") -> str:
    return f"{_with_interval(one, signed=True)} {unit} (n = {one.sounds} sounds)"


def _with_interval(one: Comparison, signed: bool = False) -> str:
    sign = "+" if signed and one.estimate > 0 else ""
    ends = "" if math.isnan(one.low) else f" [{_number(one.low)}, {_number(one.high)}]"
    return f"{sign}{_number(one.estimate)}{ends}"


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


_number = functools.partial(number, digits=2)
