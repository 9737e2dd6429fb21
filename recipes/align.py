"""Align the channels of all animals with one reference brain, and note it in the cohort.

`python -m recipes.align --cohort COHORT`
"""

import dataclasses

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.alignment import correlation_distance, permutation, smooth
from icsim.store import Cohort
from recipes.state import run


@dataclasses.dataclass(frozen=True)
class Config:
    """One alignment."""

    cohort: str
    """The cohort; each animal's permutation is written into it."""
    reference: str | None = None
    """Animal whose order the others take; the first seen one with normal hearing if not given."""
    smooth_bins: int = 8
    """Bins that are averaged before channels are compared."""


def align(config: Config) -> dict[str, float]:
    """Find and store every permutation; returns the mean cost of each animal's matches."""
    cohort = Cohort.open(config.cohort)
    reference = config.reference or reference_animal(cohort)
    target = sound_responses(cohort, reference, config.smooth_bins)
    costs = {}
    for name in tqdm(cohort.animals(), desc="aligning brains", unit="animal"):
        own = target if name == reference else sound_responses(cohort, name, config.smooth_bins)
        cost = correlation_distance(target, own)
        found = torch.arange(len(cost)) if name == reference else permutation(cost)
        cohort.animal(name).set_permutation(found)
        costs[name] = cost[torch.arange(len(cost)), found].mean().item()
    return costs


def reference_animal(cohort: Cohort) -> str:
    """The first seen animal with normal hearing.

    Raises:
        ValueError: If there is none.
    """
    for name in cohort.animals("seen"):
        if cohort.animal(name).status == "NH":
            return name
    raise ValueError("no seen animal with normal hearing: name the --reference")


def sound_responses(cohort: Cohort, name: str, smooth_bins: int) -> Tensor:
    """Unaligned smoothed responses to all training sounds, in the sounds' order, `(C, N)`.

    Sounds heard several times are averaged.
    """
    animal = cohort.animal(name)
    by_sound: dict[int, list[Tensor]] = {}
    for which, shown in enumerate(animal.presentations):
        if cohort.sounds[shown.sound].split == "train":
            counts = animal.counts(which, aligned=False).T
            by_sound.setdefault(shown.sound, []).append(smooth(counts, smooth_bins))
    if not by_sound:
        raise ValueError(f"{name} heard no training sound: there is nothing to align it by")
    return torch.cat([torch.stack(by_sound[s]).mean(0) for s in sorted(by_sound)], dim=-1)


if __name__ == "__main__":
    for animal, cost in run(align, Config).items():
        print(f"{animal}: mean cost of matched channels {cost:.3f}")
