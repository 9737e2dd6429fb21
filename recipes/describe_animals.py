"""Measure the simulated animals: the tables and figures of `docs/simulation.md`.

`python -m recipes.describe_animals --out docs/images`
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.metrics import repeatability
from icsim.seeds import seeded
from icsim.simulation import measurements as measure
from icsim.simulation.abr import ABR_FREQUENCIES_HZ
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.cochlea import filter_sound
from icsim.simulation.midbrain import draw_counts, expected_count
from icsim.simulation.sounds import embedded_sounds
from icsim.sound import SAMPLE_RATE, Sound, calibrate
from recipes.reports import animals as draw
from recipes.reports.tables import markdown
from recipes.running.commands import begin, run
from recipes.running.ranges import Count, Hours, NotEmptyStr, NotNegative, Seconds, Seed, checked


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """How much is measured."""

    out: NotEmptyStr | None = None
    """Folder of the figures; without one there are only tables."""
    listeners: Count = 100
    """Animals whose thresholds are measured, of each hearing."""
    brains: Count = 8
    """Healthy animals whose responses are measured."""
    channels: Count = 48
    """Channels of each."""
    seconds: Seconds = 12.0
    """Sounds that they hear [s]."""
    scatters: tuple[NotNegative, ...] = (0.0, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)
    """Private deviations of channels, in units of the spread over the map, that are compared."""
    scatter_channels: tuple[Count, ...] = (128, 256)
    """Channels of the brains in which they are."""
    scatter_brains: Count = 5
    """How many brains."""
    scatter_seconds: Seconds = 30.0
    """Sounds that they hear [s]."""
    drifting: Count = 4
    """Animals of each hearing for which the cost of ignoring their drift is computed."""
    hours: Hours = 11.0
    """Length of their recordings [h]."""
    figure_channels: Count = 64
    """Channels of the animal in the figures."""
    seed: Seed = 0
    """Of animals and sounds."""


HEARINGS = (("NH", 0.0), ("HI", 0.4), ("HI", 1.0), ("HI", 1.8), ("hidden", 0.0))
"""Hearing and severity of the animals whose thresholds are measured."""


def describe(config: Config) -> str:
    """Tables in Markdown: thresholds, responses, likeness of brains, scatter, what ignored drift
    costs; and the figures.
    """
    for channels in (config.channels, config.figure_channels, *config.scatter_channels):
        draw_anatomy(channels, config.seed)
    if config.out:
        Path(config.out).mkdir(parents=True, exist_ok=True)
    begin()
    levels = {
        (hearing, severity): measure.audiograms(hearing, severity, config.listeners, config.seed)
        for hearing, severity in HEARINGS
    }
    sounds = embedded_sounds((0.0, 0.0, config.seconds * 6), config.seed, 5.0)
    speech = torch.cat([s.pressure for s in sounds if s.kind == "speech"]).unsqueeze(0)
    everything = torch.cat([calibrate(s.pressure, 65.0) for s in sounds]).unsqueeze(0)
    brains = [Animal(draw_anatomy(config.channels, config.seed + n)) for n in range(config.brains)]
    tables = [
        thresholds(levels),
        responses(brains, speech, config),
        loudness(brains, speech[0]),
        likeness(brains, everything),
        scatter(config),
        drift(sounds, config),
    ]
    if config.out:
        tables.append(draw_figures(config, Path(config.out), levels, speech[0]))
    return "\n\n".join(tables)


def thresholds(levels: dict[tuple[str, float], Tensor]) -> str:
    """Mean and SD of measured thresholds [dB SPL], by hearing and severity."""
    lines = [["", *(f"{hz / 1000:g} kHz" for hz in ABR_FREQUENCIES_HZ)]]
    for (hearing, severity), table in levels.items():
        spread = zip(table.mean(0).tolist(), table.std(0).tolist(), strict=True)
        name = f"{hearing}, severity {severity:g}" if severity else hearing
        lines.append([name, *(f"{mean:.1f} ({sd:.1f})" for mean, sd in spread)])
    return markdown(lines)


@torch.no_grad()
def responses(brains: list[Animal], speech: Tensor, config: Config) -> str:
    """Counts, entropies and repeatability of healthy responses to speech at three levels."""
    lines = [
        [
            "level [dB SPL]",
            "counts a bin",
            "entropy [nats]",
            "left [nats]",
            "median trial correlation",
            "channels above 0.22",
        ]
    ]
    for level_db_spl in (40.0, 65.0, 90.0):
        subbands = filter_sound(calibrate(speech, level_db_spl))
        cells = []
        for n, brain in enumerate(tqdm(brains, desc=f"responses, {level_db_spl:g} dB SPL")):
            probability = brain.count_probabilities(subbands)
            trials = [draw_counts(probability, seeded(config.seed, n, t))[0] for t in range(2)]
            repeated = repeatability(torch.stack(trials)).correlation
            cells.append(
                [
                    expected_count(probability).mean(),
                    _entropy(probability.mean((0, 1, 3))),
                    _entropy(probability.movedim(2, -1)).mean(),
                    repeated.median(),
                    100 * (repeated > 0.22).float().mean(),
                ]
            )
        *values, above = torch.tensor(cells).mean(0).tolist()
        numbers = [f"{value:.2f}" for value in values]
        lines.append([f"{level_db_spl:g}", *numbers, f"{above:.0f} %"])
    return markdown(lines)


def likeness(brains: list[Animal], sounds: Tensor) -> str:
    """Each brain from the mean of the others, matched on noise-free responses: what is shared."""
    measured = measure.likeness(brains, filter_sound(sounds))
    low, high = measured.min(0).values, measured.max(0).values
    names = ["explained variance", "octave error before matching", "octave error after"]
    lines = [["of each brain", "least", "most"]]
    lines += [[name, f"{low[i]:.2f}", f"{high[i]:.2f}"] for i, name in enumerate(names)]
    return markdown(lines)


def loudness(brains: list[Animal], speech: Tensor) -> str:
    """Mean counts a bin in speech of the same brains with every hearing, severity 1."""
    levels_db_spl = torch.tensor([40.0, 65.0, 90.0])
    lines = [["level [dB SPL]", "NH", "HI, severity 1", "hidden"]]
    cells = []
    for n, brain in enumerate(tqdm(brains, desc="loudness")):
        responses = [
            Animal(brain.anatomy, draw_loss(hearing, 1.0, n)) for hearing in ("NH", "HI", "hidden")
        ]
        counts = measure.speech_responses(responses, speech, levels_db_spl)
        cells.append(counts.mean((2, 3)))
    for level_db_spl, counts in zip(levels_db_spl, torch.stack(cells).mean(0).T, strict=True):
        lines.append([f"{level_db_spl:g}", *(f"{count:.2f}" for count in counts.tolist())])
    return markdown(lines)


def scatter(config: Config) -> str:
    """What brains explain of one another, by the private scatter of their channels."""
    sounds = embedded_sounds((0.0, 0.0, config.scatter_seconds), config.seed, 2.5)
    subbands = filter_sound(torch.stack([calibrate(s.pressure, 65.0) for s in sounds]))
    predictors = ("matched by correlation", "matched on the map", "best of all", "no scatter")
    lines = [["channels", "scatter", *predictors]]
    for channels in config.scatter_channels:
        for deviation in tqdm(config.scatters, desc=f"scatter, {channels} channels"):
            brains = [
                Animal(draw_anatomy(channels, config.seed + n, deviation))
                for n in range(config.scatter_brains)
            ]
            shares = measure.shared_variance(brains, subbands)
            low, high = shares.min(0).values.tolist(), shares.max(0).values.tolist()
            numbers = zip(shares.mean(0).tolist(), low, high, strict=True)
            cells = [f"{mean:.3f} ({least:.2f}–{most:.2f})" for mean, least, most in numbers]
            lines.append([str(channels), f"{deviation:g}", *cells])
    return markdown(lines)


def drift(sounds: Sequence[Sound], config: Config) -> str:
    """FEVE that is lost where the drift of animals is ignored, least to most of them."""
    lines = [["", "drift [dB/h]", "FEVE lost, mean", "least to most"]]
    one_each = {sound.kind: sound.pressure for sound in sounds}
    for hearing, severity in HEARINGS:
        losses = [draw_loss(hearing, severity, config.seed + n) for n in range(config.drifting)]
        lost = torch.stack(
            [
                measure.drift_costs(
                    Animal(draw_anatomy(config.channels, config.seed + n), loss),
                    list(one_each.values()),
                    config.hours,
                    config.seed + n,
                ).mean()
                for n, loss in enumerate(tqdm(losses, desc=f"drift, {hearing} {severity:g}"))
            ]
        )
        rates = [loss.drift_db_per_hour for loss in losses]
        name = f"{hearing}, severity {severity:g}" if severity else hearing
        ends = f"{lost.min():.3f}–{lost.max():.3f}"
        lines.append([name, f"{min(rates):.1f}–{max(rates):.1f}", f"{lost.mean():.3f}", ends])
    return markdown(lines)


def draw_figures(config: Config, out: Path, thresholds_db_spl: dict, speech: Tensor) -> str:
    """Measure and draw one animal, healthy and with each loss; a table says it in numbers."""
    anatomy = draw_anatomy(config.figure_channels, config.seed, coverage_spread=0.0)
    anatomy = dataclasses.replace(anatomy, dead=())  # which have nothing to show
    losses = {name: draw_loss(name, 1.0, config.seed) for name in ("NH", "HI", "hidden")}
    losses["HI, no central gain"] = dataclasses.replace(losses["HI"], central_gain=1.0)
    animals = {name: Animal(anatomy, loss) for name, loss in losses.items()}
    cf_hz, best_hz = animals["NH"].cf_hz, animals["NH"].best_modulation_hz
    frequencies_hz = 2 ** torch.arange(8.0, 13.45, 1 / 6)
    levels_db_spl = torch.arange(0.0, 101.0, 5.0)
    answers = measure.tone_responses(list(animals.values()), frequencies_hz, levels_db_spl)
    tones = dict(zip(animals, answers, strict=True))
    tuned = {name: measure.criterion_levels(tones[name], levels_db_spl) for name in ("NH", "HI")}
    sharp = {name: measure.sharpness(curves, frequencies_hz) for name, curves in tuned.items()}
    grown = {name: measure.rate_levels(t, frequencies_hz, cf_hz) for name, t in tones.items()}
    rates_hz = 4 * 2 ** (torch.arange(14) / 2)
    locked, mean = measure.modulation_transfer(animals["NH"], rates_hz, seed=config.seed)
    excerpt = speech[: round(SAMPLE_RATE)]
    spoken = torch.tensor([40.0, 65.0, 90.0])
    three = ["NH", "HI", "hidden"]
    images = measure.speech_responses([animals[name] for name in three], excerpt, spoken)
    hours, heard_at = torch.arange(0.0, 12.0), torch.tensor([0.0, 4.0, 10.0])
    drifting = {}
    for hearing, n in (("NH", 2), ("NH", 3), ("HI", 0), ("HI", 3), ("hidden", 0), ("hidden", 1)):
        loss = draw_loss(hearing, 1.0, config.seed + n)
        name = f"{hearing}, {loss.drift_db_per_hour:.2f} dB/h"
        drifting[name] = measure.threshold_shifts(Animal(anatomy, loss), hours)
    same = calibrate(excerpt, 65.0).expand(len(heard_at), -1)
    with torch.no_grad():
        later = animals["HI"].expected_counts(same, heard_at)
    groups = {"below 600 Hz: all hair cells": cf_hz < 600, "above 1.5 kHz: loss": cf_hz > 1500}
    shown = _nearest(cf_hz, (700, 1500, 3000, 6000)), _nearest(best_hz, (12, 30, 80, 180))
    drawn = {
        "audiograms": draw.audiograms(thresholds_db_spl),
        "tuning": draw.tuning(frequencies_hz, tuned, sharp, shown[0], unheard_db_spl=105),
        "rate_levels": draw.rate_levels(levels_db_spl, grown, groups),
        "modulation": draw.modulation(rates_hz, locked, mean, best_hz, shown[1]),
        "speech": draw.speech(images, three, spoken.tolist(), cf_hz),
        "drift": draw.drift(hours, drifting, later, heard_at.tolist(), cf_hz),
    }
    for name, figure in drawn.items():
        draw.save(figure, out / f"{name}.png")
    peak = (rates_hz[locked.argmax(0)] / best_hz).log2().abs()
    soft, loud = (
        rates_hz[measure.modulation_transfer(animals["NH"], rates_hz, level)[0].argmax(0)]
        for level in (45.0, 85.0)
    )
    fallen = {
        name: (rates[-1] < 0.5 * rates.max(0).values).float().mean()
        for name, rates in grown.items()
    }
    lines = [["figures in numbers", "NH", "HI, severity 1"]]
    lines.append(["median Q10", *(f"{sharp[n][1].nanmedian():.2f}" for n in ("NH", "HI"))])
    lines.append(["falling by half at 100 dB SPL", *(f"{fallen[n]:.0%}" for n in ("NH", "HI"))])
    lines.append(["octaves from best to peak rate, median", f"{peak.median():.2f}", ""])
    moved = (soft / loud).log2().abs().median()
    lines.append(["octaves from peak at 45 to peak at 85 dB SPL, median", f"{moved:.2f}", ""])
    return markdown(lines)


def _nearest(values: Tensor, wanted: Sequence[float]) -> list[int]:
    return [int((values / value).log2().abs().argmin()) for value in wanted]


def _entropy(probability: Tensor) -> Tensor:
    """Along the last dimension [nats]."""
    return -torch.special.xlogy(probability, probability).sum(-1)


if __name__ == "__main__":
    print(run(describe, Config))
