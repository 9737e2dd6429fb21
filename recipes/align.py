"""Align the channels of all animals, and note in the cohort which belong together.

`python -m recipes.align --cohort COHORT`
"""

import dataclasses

from tqdm import tqdm

from icsim.cohort_alignment import CAPACITY, RELIABLE, SMOOTH_BINS, Cost, Method, align_cohort
from icsim.recording import ALIGNMENT
from icsim.store import Cohort
from recipes.running.commands import begin, run
from recipes.running.ranges import AtLeastOne, Correlation, Count, NotEmptyStr, checked


@dataclasses.dataclass(frozen=True)
@checked
class Config:
    """One alignment."""

    cohort: NotEmptyStr
    """The cohort; each animal's alignment is written into it."""
    method: Method = "template"
    """Channels are brought to those of several normal brains, or, as published, a permutation makes
    each brain's channels those of one reference brain."""
    capacity: AtLeastOne = CAPACITY
    """How much of a brain a channel of the template can take, in units of its fair share."""
    reference: list[NotEmptyStr] | None = None
    """Brains whose channels make the template (one for a permutation); by default the first three
    seen animals with normal hearing (the first)."""
    smooth_bins: Count = SMOOTH_BINS
    """Bins that are averaged before channels are compared."""
    reliable: Correlation = RELIABLE
    """Correlation of a channel's smoothed answers to the same sound below which it is set apart."""
    name: NotEmptyStr = ALIGNMENT
    """Of the alignment: a cohort can hold several."""
    cost: Cost = "correlation"
    """Of matching two channels: one less the correlation of their answers, or, as published, their
    mean squared difference."""


def align(config: Config) -> dict[str, dict]:
    """Find and store every alignment.

    Returns:
        For each animal the channels set apart, and the mean correlation of the others with their
        matches, for the training sounds that they were matched by and for validation sounds.
    """
    cohort = Cohort.open(config.cohort)
    settings = dataclasses.asdict(config) | {"cohort": cohort}
    report = {}
    with tqdm(total=len(cohort.animals()), desc="aligning brains", unit="animal") as bar:
        for name, aligned in align_cohort(**settings):
            begin()
            report[name] = aligned
            bar.update()
    return report


if __name__ == "__main__":
    for animal, aligned in run(align, Config).items():
        held_out = aligned["held_out_correlation"]
        print(
            f"{animal}: mean correlation of matched channels {aligned['correlation']:.3f}"
            + (f", {held_out:.3f} for validation sounds" if held_out is not None else "")
            + f", {len(aligned['apart'])} set apart"
        )
