"""Measure the simulated animals: the tables of `docs/simulation.md`.

`python -m recipes.describe_animals`
"""

import dataclasses

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.alignment import correlation_distance, octave_error, permutation
from icsim.metrics import repeatability
from icsim.simulation.abr import ABR_FREQUENCIES_HZ, abr_thresholds
from icsim.simulation.animal import Animal, draw_anatomy, draw_loss
from icsim.simulation.cochlea import filter_sound
from icsim.simulation.midbrain import draw_counts, expected_count
from icsim.simulation.sounds import embedded_sounds
from icsim.sound import calibrate
from recipes.state import run, seeded


@dataclasses.dataclass(frozen=True)
class Config:
    """How much is measured."""

    listeners: int = 100
    """Animals whose thresholds are measured, of each hearing."""
    brains: int = 8
    """Healthy animals whose responses are measured."""
    channels: int = 48
    """Channels of each."""
    seconds: float = 12.0
    """Sounds that they hear [s]."""
    seed: int = 0
    """Of animals and sounds."""


def describe(config: Config) -> str:
    """Three tables in Markdown: thresholds, responses by level, likeness of healthy brains."""
    sounds = embedded_sounds((0.0, 0.0, config.seconds * 6), config.seed, 5.0)
    speech = torch.cat([s.pressure for s in sounds if s.kind == "speech"]).unsqueeze(0)
    everything = torch.cat([calibrate(s.pressure, 65.0) for s in sounds]).unsqueeze(0)
    brains = [Animal(draw_anatomy(config.channels, config.seed + n)) for n in range(config.brains)]
    return "\n\n".join(
        [thresholds(config), responses(brains, speech, config), likeness(brains, everything)]
    )


def thresholds(config: Config) -> str:
    """Mean and SD of measured thresholds [dB SPL], by hearing."""
    lines = [["", *(f"{hz / 1000:g} kHz" for hz in ABR_FREQUENCIES_HZ)]]
    for hearing, severity in (("NH", 0.0), ("HI", 1.0), ("hidden", 0.0)):
        measured = []
        for n in tqdm(range(config.listeners), desc=f"thresholds, {hearing}"):
            animal = Animal(draw_anatomy(4, config.seed + n), draw_loss(hearing, severity, n))
            measured.append(abr_thresholds(animal, seeded(config.seed, n)))
        table = torch.stack(measured)
        spread = zip(table.mean(0).tolist(), table.std(0).tolist(), strict=True)
        lines.append([hearing, *(f"{mean:.1f} ({sd:.1f})" for mean, sd in spread)])
    return _markdown(lines)


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
        found = []
        for n, brain in enumerate(tqdm(brains, desc=f"responses, {level_db_spl:g} dB SPL")):
            probability = brain.count_probabilities(subbands)
            trials = [draw_counts(probability, seeded(config.seed, n, t))[0] for t in range(2)]
            repeated = repeatability(*trials).correlation
            found.append(
                [
                    expected_count(probability).mean(),
                    _entropy(probability.mean((0, 1, 3))),
                    _entropy(probability.movedim(2, -1)).mean(),
                    repeated.median(),
                    100 * (repeated > 0.22).float().mean(),
                ]
            )
        counts, whole, left, correlation, above = torch.tensor(found).mean(0).tolist()
        lines.append(
            [
                f"{level_db_spl:g}",
                f"{counts:.2f}",
                f"{whole:.2f}",
                f"{left:.2f}",
                f"{correlation:.2f}",
                f"{above:.0f} %",
            ]
        )
    return _markdown(lines)


@torch.no_grad()
def likeness(brains: list[Animal], sounds: Tensor) -> str:
    """Each brain from the mean of the others, matched on noise-free responses: what is shared."""
    subbands = filter_sound(sounds)
    heard = [brain.expected_counts(subbands)[0] for brain in tqdm(brains, desc="likeness")]
    rows = []
    for n, own in enumerate(heard):
        matched, before, after = [], [], []
        for other, brain in zip(heard, brains, strict=True):
            if other is own:
                continue
            order = permutation(correlation_distance(own, other))
            matched.append(other[order])
            before.append(octave_error(brains[n].cf_hz, brain.cf_hz))
            after.append(octave_error(brains[n].cf_hz, brain.cf_hz[order]))
        error = (torch.stack(matched).mean(0) - own).square().sum()
        explained = 1 - error / (own - own.mean(-1, keepdim=True)).square().sum()
        rows.append([explained, torch.tensor(before).median(), torch.tensor(after).median()])
    low, high = torch.tensor(rows).min(0).values, torch.tensor(rows).max(0).values
    names = ["explained variance", "octave error before matching", "octave error after"]
    lines = [["of each brain", "least", "most"]]
    lines += [[name, f"{low[i]:.2f}", f"{high[i]:.2f}"] for i, name in enumerate(names)]
    return _markdown(lines)


def _entropy(probability: Tensor) -> Tensor:
    """Along the last dimension [nats]."""
    return -torch.special.xlogy(probability, probability).sum(-1)


def _markdown(lines: list[list[str]]) -> str:
    ruled = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


if __name__ == "__main__":
    print(run(describe, Config))
