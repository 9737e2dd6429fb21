"""Align the channels of all animals, and note in the cohort which belong together.

`python -m recipes.align --cohort COHORT`
"""

import dataclasses
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from icsim.alignment import (
    correlation_distance,
    neutral,
    octave_error,
    permutation,
    smooth,
    transport,
)
from icsim.frames import recording_pairs
from icsim.metrics import repeatability
from icsim.recording import ALIGNMENT, APART
from icsim.sound import SPONTANEOUS
from icsim.store import Cohort
from recipes.ranges import AtLeastOne, Correlation, Count, NotEmptyStr, checked
from recipes.state import begin, run

REFERENCES = {"template": 3, "permutation": 1}
"""Brains that others are aligned with, by method."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One alignment."""

    cohort: NotEmptyStr
    """The cohort; each animal's alignment is written into it."""
    method: Literal["template", "permutation"] = "template"
    """Channels are brought to those of several normal brains, or, as published, a permutation makes
    each brain's channels those of one reference brain."""
    capacity: AtLeastOne = 1.5
    """How much of a brain a channel of the template can take, in units of its fair share."""
    reference: list[NotEmptyStr] | None = None
    """Brains whose channels make the template (one for a permutation); by default the first three
    seen animals with normal hearing (the first)."""
    smooth_bins: Count = 8
    """Bins that are averaged before channels are compared."""
    reliable: Correlation = 0.1
    """Correlation of a channel's smoothed answers to the same sound below which it is set apart."""
    name: NotEmptyStr = ALIGNMENT
    """Of the alignment: a cohort can hold several."""

    __post_init__ = checked


def align(config: Config) -> dict[str, dict]:
    """Find and store every alignment.

    Returns:
        For each animal the channels set apart, and the mean correlation of the others with their
        matches, for the training sounds that they were matched by and for validation sounds.
    """
    cohort = Cohort.open(config.cohort)
    references = reference_brains(cohort, config)
    relied = {name: reliable_channels(cohort, name, config) for name in cohort.animals()}
    used = {n: relied[n] | (config.method == "permutation") for n in references}
    answers = {
        split: {n: sound_responses(cohort, n, config.smooth_bins, split) for n in references}
        for split in ("train", "validation")
    }
    report = {}
    begin()
    for name in tqdm(cohort.animals(), desc="aligning brains", unit="animal"):
        costs = {}
        for split, template in answers.items():
            own = template.get(name) or sound_responses(cohort, name, config.smooth_bins, split)
            costs[split] = distance(own, template, used)
        cost = costs["train"]
        if cost is None:
            raise ValueError(
                f"no training sound was heard by {name} and all of {', '.join(references)}: "
                "there is nothing to align it by"
            )
        channels, slots = cost.shape
        matching = torch.full((channels,), APART)
        if config.method == "permutation":
            order = permutation(neutral(cost.T, relied[references[0]], relied[name]))
            matched = order != APART
            matching[order[matched]] = torch.arange(slots)[matched]
            matching[~relied[name]] = APART
        else:
            matching[relied[name]] = transport(cost[relied[name]], config.capacity)
        cohort.animal(name).set_alignment(matching, slots, config.name)
        report[name] = {
            "apart": (matching == APART).nonzero().flatten().tolist(),
            "correlation": likeness(cost, matching),
            "held_out_correlation": likeness(costs["validation"], matching),
        }
    return report


Responses = dict[int, Tensor]
"""By sound, what a brain answered, `(C, N)`."""


def distance(
    own: Responses, template: dict[str, Responses], used: dict[str, Tensor]
) -> Tensor | None:
    """Correlation distance of a brain's channels from those of a template, by common sounds.

    Args:
        own: Of the brain.
        template: Of the brains that make it.
        used: Which of their channels do, bool `(C,)`.

    Returns:
        `(C, slots)`; None if there is no sound that all of them heard.
    """
    common = sorted(set(own).intersection(*template.values()))
    if not common:
        return None
    slots = [torch.cat([template[n][s] for s in common], -1)[used[n]] for n in template]
    return correlation_distance(torch.cat([own[s] for s in common], -1), torch.cat(slots))


def likeness(cost: Tensor | None, matching: Tensor) -> float | None:
    """Mean correlation of matched channels, from a correlation distance `(C, slots)`."""
    used = matching != APART
    if cost is None or not bool(used.any()):
        return None
    return 1 - cost[used].gather(1, matching[used, None]).mean().item()


def reference_brains(cohort: Cohort, config: Config) -> list[str]:
    """The brains that others are aligned with.

    Raises:
        ValueError: If none is named and no seen animal has normal hearing.
    """
    most = REFERENCES[config.method]
    if config.reference:
        if len(config.reference) > most and most == 1:
            raise ValueError(f"a permutation has one reference brain, not {config.reference}")
        return [cohort.animal(name).name for name in config.reference]
    normal = [name for name in cohort.animals("seen") if cohort.animal(name).status == "NH"]
    if not normal:
        raise ValueError("no seen animal with normal hearing: name the --reference")
    return normal[:most]


def reliable_channels(cohort: Cohort, name: str, config: Config) -> Tensor:
    """Which channels answer alike when a sound comes again, bool `(C,)`.

    Only training and validation sounds count. Where none was heard twice, every channel that is not
    constant is taken to be reliable.
    """
    animal = cohort.animal(name)
    pairs = recording_pairs(cohort, name, ["train", "validation"])
    if not pairs:
        responses = sound_responses(cohort, name, config.smooth_bins)
        if not responses:
            raise ValueError(f"{name} heard no training sound: there is nothing to align it by")
        return torch.cat(list(responses.values()), -1).std(-1) > 0
    trials = [
        torch.cat([smooth(animal.counts(t[turn]).T, config.smooth_bins) for _, t in pairs], -1)
        for turn in range(min(len(t) for _, t in pairs))
    ]
    return repeatability(torch.stack(trials)).correlation >= config.reliable


def sound_responses(cohort: Cohort, name: str, smooth_bins: int, split: str = "train") -> Responses:
    """Smoothed responses of an animal to the sounds of a split, averaged over presentations.

    Silence is left out: what is fired in it follows nothing that brains have in common.
    """
    animal = cohort.animal(name)
    by_sound: dict[int, list[Tensor]] = {}
    for which, shown in enumerate(animal.presentations):
        sound = cohort.sounds[shown.sound]
        if sound.split == split and sound.kind != SPONTANEOUS:
            counts = animal.counts(which).T
            by_sound.setdefault(shown.sound, []).append(smooth(counts, smooth_bins))
    return {sound: torch.stack(trials).mean(0) for sound, trials in by_sound.items()}


def place_on_map(cf_hz: Tensor, best_modulation_hz: Tensor) -> Tensor:
    """Where simulated channels lie [octaves], `(C, 2)`; modulation rates count half."""
    return torch.stack([cf_hz.log2(), best_modulation_hz.log2() / 2], -1)


def slot_places(cohort: Cohort, config: Config) -> Tensor:
    """True place of each slot on the map, `(slots, 2)`, where animals are simulated; else NaN."""
    references = reference_brains(cohort, config)
    slots = cohort.animal(references[0]).alignment(config.name).slots
    places = torch.full((slots, 2), torch.nan)
    for name in references:
        matching, truth = cohort.animal(name).alignment(config.name).matching, cohort.truth(name)
        kept = matching != APART
        axes = (torch.tensor(truth[axis]) for axis in ("cf_hz", "best_modulation_hz"))
        places[matching[kept]] = place_on_map(*axes)[kept]
    return places


def octave_errors(cohort: Cohort, config: Config) -> dict[str, dict[str, float]]:
    """Median error of matched characteristic frequencies by animal [octaves], before and after.

    Only the animals whose channels make no slots themselves; simulated ones, as the truth is asked.
    """
    references = reference_brains(cohort, config)
    unaligned = torch.tensor(cohort.truth(references[0])["cf_hz"])
    slots_hz = 2 ** slot_places(cohort, config)[:, 0]
    errors: dict[str, dict[str, float]] = {"before alignment": {}, "after alignment": {}}
    for name in cohort.animals():
        found = cohort.animal(name).alignment(config.name)
        if name in references or found is None:
            continue
        own, kept = torch.tensor(cohort.truth(name)["cf_hz"]), found.matching != APART
        known = kept & slots_hz[found.matching.clamp(min=0)].isfinite()
        errors["before alignment"][name] = octave_error(unaligned, own)
        errors["after alignment"][name] = octave_error(slots_hz[found.matching[known]], own[known])
    return errors


if __name__ == "__main__":
    for animal, aligned in run(align, Config).items():
        held_out = aligned["held_out_correlation"]
        print(
            f"{animal}: mean correlation of matched channels {aligned['correlation']:.3f}"
            + (f", {held_out:.3f} for validation sounds" if held_out is not None else "")
            + f", {len(aligned['apart'])} set apart"
        )
