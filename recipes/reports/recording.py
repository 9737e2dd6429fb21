"""What came in by an import: a summary, tables, a figure, and what will fail later and why."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from icsim.description import LEVELS_DB_SPL, trial_correlation
from icsim.recording import AnimalRecording, SoundEntry
from icsim.sound import REFERENCE_PA, RESPONSE_RATE, SAMPLE_RATE
from icsim.store import Cohort
from icsim.validation import SPLITS
from recipes.reports.figures import COLOURS, MARKERS
from recipes.reports.tables import NOTHING, Table, number

SHOWN_S = 10.0
"""How much of a sound is drawn [s] (chosen here)."""

DRAWN_BINS = 8
"""Response bins that are drawn as one, 10.5 ms (chosen here)."""


# Tables -------------------------------------------------------------------------------------------


def tables(summary: dict) -> list[Table]:
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
        for split, one in summary["sounds"].items()
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
        for name, one in summary["animals"].items()
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


def printed(summary: dict) -> str:
    """Tables and warnings of a summary, for a terminal."""
    parts = [table.markdown() for table in tables(summary)]
    return "\n".join(parts + [f"warning: {one}" for one in summary["warnings"]])


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
    left, right = rows[len(heights) - 1].subgridspec(1, 2).subplots(squeeze=False)[0]
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
    presented = [s for s in cohort.sounds if any(s.index in t for t in times.values())]
    played = [s for s in presented if s.level_db_spl is not None] or presented

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
    return sound, sorted(names, key=order.__getitem__)[:animals]


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
    measured = [
        (a, [hz / 1e3 for hz in a.abr_frequencies_hz], a.thresholds_db_spl)
        for a in animals
        if a.abr_frequencies_hz is not None and a.thresholds_db_spl is not None
    ]
    axis.set_title(f"Thresholds: measured in {len(measured)} of {len(animals)}")
    for index, (animal, khz, levels) in enumerate(measured):
        axis.semilogx(
            khz,
            levels,
            color=COLOURS[animal.status],
            linestyle="-" if animal.role == "seen" else "--",
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            label=f"{animal.name}, {animal.status}",
        )
    if measured:
        ticks = sorted({k for _, khz, _ in measured for k in khz})
        axis.set_xticks(ticks, labels=[f"{k:g}" for k in ticks])
        axis.minorticks_off()
        axis.set(xlabel="frequency [kHz]", ylabel="threshold [dB SPL]")
    else:
        axis.set_axis_off()
