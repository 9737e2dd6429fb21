"""What came in by an import: a summary, tables, a figure, and what will fail later and why."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from icsim.checks import SPLITS
from icsim.frames import recording_pairs
from icsim.recording import AnimalRecording, SoundEntry
from icsim.sound import REFERENCE_PA, RESPONSE_RATE, SAMPLE_RATE
from icsim.store import Cohort
from recipes.cells import NOTHING, Table, number
from recipes.figures import COLOURS, MARKERS

WINDOWS_MS = (1.31, 10.0, 50.0)
"""Time scales at which trials are compared [ms] (chosen here)."""

LEVELS_DB_SPL = (20.0, 110.0)
"""Sounds outside are named: softer than a library, louder than a pneumatic hammer (chosen here)."""

FIRST_HOURS = 2.0
"""From these `recipes.fit_theta` takes what it fits a listener to [h]."""

ENOUGH_S = 30.0
"""So much of it [s]."""

SHOWN_S = 10.0
"""How much of a sound is drawn [s] (chosen here)."""

DRAWN_BINS = 8
"""Response bins that are drawn as one, 10.5 ms (chosen here)."""


def summary(cohort: Cohort) -> dict:
    """What tells at a glance whether an import went well; JSON can hold it."""
    return {
        "sounds": {
            split: _of_sounds([s for s in cohort.sounds if s.split == split]) for split in SPLITS
        },
        "animals": {name: of_animal(cohort, name) for name in cohort.animals()},
        "warnings": warnings(cohort),
    }


def _of_sounds(sounds: Sequence[SoundEntry]) -> dict:
    levels = [s.level_db_spl for s in sounds if s.level_db_spl is not None]
    return {
        "sounds": len(sounds),
        "seconds": round(sum(s.samples for s in sounds) / SAMPLE_RATE, 3),
        "kinds": dict(sorted(Counter(s.kind for s in sounds).items())),
        "sources": sorted({s.source for s in sounds}),
        "level_db_spl": _spread(torch.tensor(levels) if levels else None),
    }


def of_animal(cohort: Cohort, name: str) -> dict:
    """Hearing, what was heard, rates, and how alike trials are."""
    animal = cohort.animal(name)
    bins = sum(p.bins for p in animal.presentations)
    spikes = sum(animal.counts(n).long().sum(0) for n in range(len(animal.presentations)))
    thresholds = animal.thresholds_db_spl
    if thresholds is not None:
        named = zip(animal.abr_frequencies_hz, thresholds.tolist(), strict=True)
        thresholds = {f"{hz:g} Hz": threshold for hz, threshold in named}
    return {
        "status": animal.status,
        "role": animal.role,
        "thresholds_db_spl": thresholds,
        "channels": animal.channels,
        "presentations": len(animal.presentations),
        "seconds": round(bins / RESPONSE_RATE, 3),
        "hours": round(
            max(p.time_h + p.bins / RESPONSE_RATE / 3600 for p in animal.presentations), 3
        ),
        "splits": {split: _heard(cohort, animal, split) for split in SPLITS},
        "spikes_a_second": _spread(spikes * RESPONSE_RATE / bins),
        "trial_correlation": {
            f"{window_ms:g} ms": _spread(_mean_correlation(cohort, name, window_ms))
            for window_ms in WINDOWS_MS
        },
    }


def _heard(cohort: Cohort, animal: AnimalRecording, split: str) -> dict:
    """How much of a split an animal heard."""
    shown = [p for p in animal.presentations if cohort.sounds[p.sound].split == split]
    times = Counter(p.sound for p in shown)
    early = [p for p in shown if p.time_h <= FIRST_HOURS]
    return {
        "sounds": len(times),
        "sounds_heard_twice": sum(count > 1 for count in times.values()),
        "presentations": len(shown),
        "seconds": round(sum(p.bins for p in shown) / RESPONSE_RATE, 3),
        "seconds_in_first_hours": round(sum(p.bins for p in early) / RESPONSE_RATE, 3),
    }


def warnings(cohort: Cohort) -> list[str]:
    """What is unusual about a cohort or will fail later, each with its remedy."""
    found = _unusual_levels(cohort.sounds)
    splits = {s.split for s in cohort.sounds}
    remedy = "--split auto, in another --out, deals the sounds by source"
    if len({s.source for s in cohort.sounds if s.level_db_spl is not None}) < len(SPLITS):
        remedy = f"sounds of at least {len(SPLITS)} sources are needed"
    if "train" not in splits:
        found.append(f"no training sounds: recipes.train_ic will refuse the cohort; {remedy}")
    if "validation" not in splits:
        found.append(
            f"no validation sounds: recipes.train_ic, which stops by them, will refuse the cohort; "
            f"{remedy}"
        )
    if "test" not in splits:
        found.append(
            f"no test sounds: recipes.score_ic and recipes.judge have nothing to judge by; {remedy}"
        )
    animals = [cohort.animal(name) for name in cohort.animals()]
    tested = animals if "test" in splits else []
    once = [a.name for a in tested if not recording_pairs(cohort, a.name, "test")]
    if once:
        found.append(
            f"{_some(once)} heard no test sound twice: what of the answers can be predicted is "
            "unknown, and recipes.score_ic leaves them out"
        )
    short = {a.name: _heard(cohort, a, "train")["seconds_in_first_hours"] for a in animals}
    few = [name for name, seconds in short.items() if seconds < ENOUGH_S]
    if few and "train" in splits:
        found.append(
            f"{_some(few)} heard less than {ENOUGH_S:g} s of training sounds in the first "
            f"{FIRST_HOURS:g} h, of which recipes.fit_theta fits a listener; the fit will be less "
            "certain, or give it more --first_hours"
        )
    if not any(a.status == "NH" and a.role == "seen" for a in animals):
        found.append(
            "no seen animal with normal hearing: recipes.align needs a --reference, and no aid "
            "knows what to restore"
        )
    if not any(s.kind == "speech" and s.split == "train" for s in cohort.sounds):
        found.append(
            "no training sound of the kind speech: recipes.train_compensation needs a folder of "
            "--sounds"
        )
    return found


def _unusual_levels(sounds: Sequence[SoundEntry]) -> list[str]:
    lowest, highest = LEVELS_DB_SPL
    levels = {s.name: s.level_db_spl for s in sounds if s.level_db_spl is not None}
    soft = {name: level for name, level in levels.items() if level < lowest}
    loud = {name: level for name, level in levels.items() if level > highest}
    cause = {
        f"softer than {lowest:g}": (soft, "millipascals or volts taken for pascals"),
        f"louder than {highest:g}": (loud, "samples of whole numbers, or volts, taken for pascals"),
    }
    return [
        f"{len(some)} of {len(levels)} sounds are {what} dB SPL: "
        f"{_some([f'{name} at {level:.0f} dB SPL' for name, level in some.items()])}. Probably the "
        f"unit is wrong ({why}) or the full scale: a factor of 1000 is 60 dB. Mend the unit in the "
        "files, or give --full_scale_db_spl, and import again"
        for what, (some, why) in cause.items()
        if some
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


# How alike trials are -----------------------------------------------------------------------------


def trial_correlation(trials: Tensor, bins: int) -> Tensor:
    """Mean correlation of pairs of trials in windows of some bins, `(R, N, C)` to `(C,)`.

    A trial without any change correlates with nothing: 0.

    >>> trial_correlation(torch.arange(24.0).repeat(3, 1).unsqueeze(-1), 4)
    tensor([1.0000])
    """
    windows = trials.shape[1] // bins
    sums = trials[:, : windows * bins].float().unflatten(1, (windows, bins)).sum(2)
    centred = sums - sums.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)
    own = unit.square().sum((0, 1))
    return (unit.sum(0).square().sum(0) - own) / (len(trials) * (len(trials) - 1))


def _mean_correlation(cohort: Cohort, name: str, window_ms: float) -> Tensor | None:
    """Of each channel, mean over sounds heard more than once `(C,)`; None if there are none."""
    animal = cohort.animal(name)
    bins = max(1, round(window_ms * RESPONSE_RATE / 1e3))
    found = [
        trial_correlation(torch.stack([animal.counts(n) for n in numbers]), bins)
        for _, numbers in recording_pairs(cohort, name, SPLITS)
    ]
    return torch.stack(found).mean(0) if found else None


def _spread(values: Tensor | None) -> dict[str, float] | None:
    """Lowest, median and highest."""
    if values is None:
        return None
    spread = np.quantile(values.double().numpy(), (0.0, 0.5, 1.0)).round(4).tolist()
    return dict(zip(("lowest", "median", "highest"), spread, strict=True))


# Tables -------------------------------------------------------------------------------------------


def tables(found: dict) -> list[Table]:
    """A summary as tables: the sounds of each split, and what each animal heard."""
    sounds = [
        [
            split,
            str(one["sounds"]),
            number(one["seconds"], 1),
            str(len(one["sources"])),
            ", ".join(f"{kind} {count}" for kind, count in one["kinds"].items()) or NOTHING,
            _three(one["level_db_spl"], 0),
        ]
        for split, one in found["sounds"].items()
    ]
    animals = [
        [
            name,
            one["status"],
            one["role"],
            "yes" if one["thresholds_db_spl"] else "no",
            str(one["channels"]),
            number(one["hours"], 2),
            *(
                f"{part['sounds']} ({part['sounds_heard_twice']}), {part['seconds']:.0f} s"
                for part in one["splits"].values()
            ),
            _three(one["spikes_a_second"], 1),
            _three(one["trial_correlation"]["10 ms"], 2),
        ]
        for name, one in found["animals"].items()
    ]
    spread = "lowest / median / highest"
    return [
        Table(
            "Sounds",
            f"Levels are {spread}.",
            ["split", "sounds", "seconds", "sources", "kinds", "level [dB SPL]"],
            sounds,
        ),
        Table(
            "Animals",
            f"For each split: sounds heard (more than once), seconds. Channels: {spread}.",
            [
                *("animal", "status", "role", "thresholds", "channels", "hours"),
                *SPLITS,
                "spikes a second",
                "trial correlation, 10 ms",
            ],
            animals,
        ),
    ]


def printed(found: dict) -> str:
    """Tables and warnings of a summary, for a terminal."""
    parts = [table.markdown() for table in tables(found)]
    return "\n".join(parts + [f"warning: {one}" for one in found["warnings"]])


def _three(spread: dict | None, digits: int) -> str:
    return NOTHING if spread is None else " / ".join(number(v, digits) for v in spread.values())


# The figure ---------------------------------------------------------------------------------------


def picture(cohort: Cohort, animals: int = 3, channels: int = 6, repeats: int = 5) -> Figure:
    """An import at a glance: answers under a sound's envelope, levels, and thresholds.

    Args:
        cohort: What was imported.
        animals: At most so many answers are drawn; normal and impaired ones take turns.
        channels: Of each so many, those whose trials are most alike at 10 ms, or the busiest.
        repeats: At most so many playings of each channel.
    """
    sound, shown = _drawn(cohort, animals)
    heights = [1.2, *[2.0] * len(shown), 3.0]
    figure = Figure(figsize=(8.0, 1.1 * sum(heights)), layout="constrained")
    rows = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    top = figure.add_subplot(rows[0])
    _envelope(top, cohort, sound)
    for row, name in enumerate(shown, 1):
        axis = figure.add_subplot(rows[row], sharex=top)
        _answers(axis, cohort, name, sound, channels, repeats)
        axis.tick_params(labelbottom=row == len(shown))
    axis.set_xlabel("time since the sound began [s]")
    left, right = rows[len(heights) - 1].subgridspec(1, 2).subplots()
    _levels(left, cohort.sounds)
    _thresholds(right, [cohort.animal(name) for name in cohort.animals()])
    named = right.get_legend_handles_labels()
    if named[0]:
        figure.legend(*named, fontsize=8, ncols=4, loc="outside lower right")
    return figure


def _drawn(cohort: Cohort, animals: int) -> tuple[SoundEntry, list[str]]:
    """The sound that most animals heard most often, and some of these, NH and HI in turns."""
    times = {
        name: Counter(p.sound for p in cohort.animal(name).presentations)
        for name in cohort.animals()
    }
    heard = [s for s in cohort.sounds if any(s.index in t for t in times.values())]
    played = [s for s in heard if s.level_db_spl is not None] or heard

    def wanted(sound: SoundEntry) -> tuple:
        counts = [t[sound.index] for t in times.values()]
        return sum(c > 0 for c in counts), min(sum(counts), 5 * len(counts)), -sound.index

    sound = max(played, key=wanted)
    names = [name for name, t in times.items() if sound.index in t]
    turns: Counter = Counter()
    order = {}
    for name in names:
        status = cohort.animal(name).status
        order[name] = (turns[status], status != "NH")
        turns[status] += 1
    return sound, sorted(names, key=order.get)[:animals]


def _envelope(axis: Axes, cohort: Cohort, sound: SoundEntry) -> None:
    """Level of a sound in windows of 10 ms."""
    window = round(0.01 * SAMPLE_RATE)
    pressure = cohort.pressure(sound.index, 0, min(sound.samples, round(SHOWN_S * SAMPLE_RATE)))
    rms = pressure[: len(pressure) // window * window].view(-1, window).square().mean(1).sqrt()
    levels = 20 * torch.log10(rms.clamp(min=REFERENCE_PA) / REFERENCE_PA)
    axis.fill_between(
        (torch.arange(len(levels)) + 0.5) * window / SAMPLE_RATE, levels, color="0.45"
    )
    axis.set(ylabel="dB SPL", title=f"{sound.name} ({sound.kind}, {sound.split})")
    axis.set_ylim(0, None)
    axis.tick_params(labelbottom=False)


def _answers(
    axis: Axes, cohort: Cohort, name: str, sound: SoundEntry, channels: int, repeats: int
) -> None:
    """Counts of some channels in bins of about 10 ms, a line a playing."""
    animal = cohort.animal(name)
    numbers = [n for n, p in enumerate(animal.presentations) if p.sound == sound.index][:repeats]
    stop = min(sound.bins, round(SHOWN_S * RESPONSE_RATE)) // DRAWN_BINS * DRAWN_BINS
    trials = torch.stack([animal.counts(n, 0, stop) for n in numbers]).float()
    alike = trials.sum((0, 1)) if len(trials) < 2 else trial_correlation(trials, DRAWN_BINS)
    best = alike.argsort(descending=True)[:channels].sort().values
    joined = trials[..., best].unflatten(1, (-1, DRAWN_BINS)).sum(2)
    image = joined.permute(2, 0, 1).flatten(0, 1)
    extent = (0, stop / RESPONSE_RATE, len(image), 0)
    top = max(1.0, torch.quantile(image.flatten()[:1_000_000], 0.995).item())
    axis.imshow(
        image, aspect="auto", extent=extent, cmap="Greys", vmin=0, vmax=top, interpolation="nearest"
    )
    for edge in range(len(numbers), len(image), len(numbers)):
        axis.axhline(edge, color=COLOURS[animal.status], linewidth=0.8)
    middles = [(place + 0.5) * len(numbers) for place in range(len(best))]
    axis.set_yticks(middles, labels=[str(channel) for channel in best.tolist()])
    playings = "once" if len(numbers) == 1 else f"{len(numbers)} times"
    spikes = "1 spike" if top == 1 else f"{top:g} spikes"
    axis.set_title(f"{name}, {animal.status}: played {playings}; black is {spikes} in 10 ms")
    axis.set_ylabel("channel")


def _levels(axis: Axes, sounds: Sequence[SoundEntry]) -> None:
    """Levels of all sounds by split, beside one another where they would hide each other."""
    for place, split in enumerate(SPLITS):
        levels = sorted(
            s.level_db_spl for s in sounds if s.split == split and s.level_db_spl is not None
        )
        aside = np.resize([0.0, 0.12, -0.12, 0.24, -0.24], len(levels))
        axis.plot(place + aside, levels, "o", markersize=4, alpha=0.6, color="0.25")
    for edge in LEVELS_DB_SPL:
        axis.axhline(edge, color="0.5", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(SPLITS)), labels=SPLITS)
    axis.set(ylabel="level [dB SPL]", title="Sounds; dashed: where levels are usual")
    axis.set_xlim(-0.5, len(SPLITS) - 0.5)


def _thresholds(axis: Axes, animals: Sequence[AnimalRecording]) -> None:
    """Thresholds over frequency, of the animals of which they were measured."""
    measured = [a for a in animals if a.thresholds_db_spl is not None]
    axis.set_title(f"Thresholds: measured in {len(measured)} of {len(animals)}")
    for index, animal in enumerate(measured):
        axis.semilogx(
            [hz / 1e3 for hz in animal.abr_frequencies_hz],
            animal.thresholds_db_spl,
            color=COLOURS[animal.status],
            linestyle="-" if animal.role == "seen" else "--",
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            label=f"{animal.name}, {animal.status}",
        )
    if measured:
        khz = sorted({hz / 1e3 for a in measured for hz in a.abr_frequencies_hz})
        axis.set_xticks(khz, labels=[f"{k:g}" for k in khz])
        axis.minorticks_off()
        axis.set(xlabel="frequency [kHz]", ylabel="threshold [dB SPL]")
    else:
        axis.set_axis_off()
