"""Which channels of different brains belong together, from what they answer to the same sounds."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from icsim.alignment import (
    correlation_distance,
    neutral,
    octave_error,
    permutation,
    smooth,
    squared_distance,
    transport,
)
from icsim.frames import recording_pairs
from icsim.metrics import repeatability
from icsim.recording import ALIGNMENT, UNMATCHED
from icsim.sound import SPONTANEOUS
from icsim.store import Cohort

Method = Literal["template", "permutation"]

Cost = Literal["correlation", "squared"]

COSTS = {"correlation": correlation_distance, "squared": squared_distance}
"""Distances of channels, by name."""

RELIABLE = 0.1
"""Correlation of a channel's smoothed answers to the same sound below which it is set apart."""

SMOOTH_BINS = 8
"""Bins that are averaged before channels are compared."""

CAPACITY = 1.5
"""How much of a brain a channel of the template can take, in units of its fair share."""


def align_cohort(
    cohort: Cohort,
    method: Method = "template",
    reference: Sequence[str] | None = None,
    capacity: float = CAPACITY,
    smooth_bins: int = SMOOTH_BINS,
    reliable: float = RELIABLE,
    name: str = ALIGNMENT,
    cost: Cost = "correlation",
) -> Iterator[tuple[str, dict]]:
    """Find and store the alignment of every animal, one after the other.

    Args:
        cohort: Where alignments are written.
        method: Channels are brought to those of several normal brains by optimal transport, or, as
            published, a permutation makes each brain's channels those of one reference brain.
        reference: Brains whose channels make the template (one for a permutation); by default the
            first seen animals with normal hearing.
        capacity: How much of a brain a channel of the template can take, in its fair shares.
        smooth_bins: Bins that are averaged before channels are compared.
        reliable: Correlation of a channel's answers to the same sound below which it is set apart.
        name: Of the alignment: a cohort can hold several.
        cost: Of matching two channels: one less the correlation of their answers, or, as
            published, their mean squared difference.

    Yields:
        An animal, and of it the channels set `apart`, and the mean `correlation` of the others
        with their matches, for training sounds and (`held_out_correlation`) for validation sounds.

    Raises:
        ValueError: If no brain can be the reference, or an animal heard none of its sounds.
    """
    references = reference_brains(cohort, method, reference)
    used = {n: reliable_channels(cohort, n, smooth_bins, reliable) for n in cohort.animals()}
    slots_used = {n: used[n] | (method == "permutation") for n in references}
    answers = {
        split: {n: sound_responses(cohort, n, smooth_bins, split) for n in references}
        for split in ("train", "validation")
    }
    for animal in cohort.animals():
        responses = {
            split: template.get(animal) or sound_responses(cohort, animal, smooth_bins, split)
            for split, template in answers.items()
        }
        distances = {
            split: distance(responses[split], template, slots_used)
            for split, template in answers.items()
        }
        costs = distances["train"]
        if cost != "correlation":
            costs = distance(responses["train"], answers["train"], slots_used, COSTS[cost])
        if costs is None:
            raise ValueError(
                f"no training sound was heard by {animal} and all of {', '.join(references)}: "
                "there is nothing to align it by"
            )
        if method == "permutation":
            order = permutation(neutral(costs.T, used[references[0]], used[animal]))
            matching = torch.full((len(costs),), UNMATCHED)
            matched = order != UNMATCHED
            matching[order[matched]] = torch.arange(costs.shape[1])[matched]
            matching[~used[animal]] = UNMATCHED
        else:
            matching = torch.full((len(costs),), UNMATCHED)
            matching[used[animal]] = transport(costs[used[animal]], capacity)
        cohort.animal(animal).set_alignment(matching, costs.shape[1], name)
        yield (
            animal,
            {
                "apart": (matching == UNMATCHED).nonzero().flatten().tolist(),
                "correlation": likeness(distances["train"], matching),
                "held_out_correlation": likeness(distances["validation"], matching),
            },
        )


REFERENCES = {"template": 3, "permutation": 1}
"""Brains that others are aligned with, by method."""


Responses = dict[int, Tensor]
"""By sound, what a brain answered, `(C, N)`."""


def distance(
    responses: Responses,
    template: dict[str, Responses],
    used: dict[str, Tensor],
    measure: Callable[[Tensor, Tensor], Tensor] = correlation_distance,
) -> Tensor | None:
    """Distance of a brain's channels from those of a template, by common sounds.

    Args:
        responses: Of the brain.
        template: Of the brains that make it.
        used: Which of their channels do, bool `(C,)`.
        measure: Of answers `(C, N)` to answers.

    Returns:
        `(C, slots)`; None if there is no sound that all of them heard.
    """
    common = sorted(set(responses).intersection(*template.values()))
    if not common:
        return None
    slots = [torch.cat([template[n][s] for s in common], -1)[used[n]] for n in template]
    return measure(torch.cat([responses[s] for s in common], -1), torch.cat(slots))


def likeness(cost: Tensor | None, matching: Tensor) -> float | None:
    """Mean correlation of matched channels, from a correlation distance `(C, slots)`."""
    used = matching != UNMATCHED
    if cost is None or not bool(used.any()):
        return None
    return 1 - cost[used].gather(1, matching[used, None]).mean().item()


def reference_brains(
    cohort: Cohort, method: Method, reference: Sequence[str] | None = None
) -> list[str]:
    """The brains that others are aligned with.

    Raises:
        ValueError: If none is named and no seen animal has normal hearing.
    """
    most = REFERENCES[method]
    if reference:
        if len(reference) > most and most == 1:
            raise ValueError(f"a permutation has one reference brain, not {reference}")
        return [cohort.animal(name).name for name in reference]
    normal = [name for name in cohort.animals("seen") if cohort.animal(name).status == "NH"]
    if not normal:
        raise ValueError("no seen animal with normal hearing: name the --reference")
    return normal[:most]


def reliable_channels(
    cohort: Cohort, name: str, smooth_bins: int = SMOOTH_BINS, reliable: float = RELIABLE
) -> Tensor:
    """Which channels answer alike when a sound comes again, bool `(C,)`.

    Only training and validation sounds count. Where none was heard twice, every channel that is not
    constant is taken to be reliable.
    """
    animal = cohort.animal(name)
    pairs = recording_pairs(cohort, name, ["train", "validation"])
    if not pairs:
        responses = sound_responses(cohort, name, smooth_bins)
        if not responses:
            raise ValueError(f"{name} heard no training sound: there is nothing to align it by")
        return torch.cat(list(responses.values()), -1).std(-1) > 0
    trials = [
        torch.cat([smooth(animal.counts(t[turn]).T, smooth_bins) for _, t in pairs], -1)
        for turn in range(min(len(t) for _, t in pairs))
    ]
    return repeatability(torch.stack(trials)).correlation >= reliable


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


def slot_places(cohort: Cohort, references: Sequence[str], alignment: str = ALIGNMENT) -> Tensor:
    """True place of each slot on the map, `(slots, 2)`, where animals are simulated; else NaN."""
    slots = cohort.animal(references[0]).require_alignment(alignment).slots
    places = torch.full((slots, 2), torch.nan)
    for name in references:
        matching = cohort.animal(name).require_alignment(alignment).matching
        truth, matched = cohort.truth(name), matching != UNMATCHED
        axes = (torch.tensor(truth[axis]) for axis in ("cf_hz", "best_modulation_hz"))
        places[matching[matched]] = place_on_map(*axes)[matched]
    return places


def octave_errors(
    cohort: Cohort, references: Sequence[str], alignment: str = ALIGNMENT
) -> dict[str, dict[str, float]]:
    """Median error of matched characteristic frequencies by animal [octaves], before and after.

    Only the animals whose channels make no slots themselves; simulated ones, as the truth is asked.
    """
    unaligned = torch.tensor(cohort.truth(references[0])["cf_hz"])
    slots_hz = 2 ** slot_places(cohort, references, alignment)[:, 0]
    errors: dict[str, dict[str, float]] = {"before alignment": {}, "after alignment": {}}
    for name in cohort.animals():
        aligned = cohort.animal(name).alignment(alignment)
        if name in references or aligned is None:
            continue
        true_hz, matched = torch.tensor(cohort.truth(name)["cf_hz"]), aligned.matching != UNMATCHED
        placed = matched & slots_hz[aligned.matching.clamp(min=0)].isfinite()
        errors["before alignment"][name] = octave_error(unaligned, true_hz)
        errors["after alignment"][name] = octave_error(
            slots_hz[aligned.matching[placed]], true_hz[placed]
        )
    return errors
