"""Audiograms of animals: shifts of thresholds from the mean of those with normal hearing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from icsim.audiogram import Audiogram
from icsim.models.facts import ModelFacts
from icsim.store import Cohort


def audiogram_of(cohort: Cohort, name: str) -> Audiogram:
    """Shift of an animal's thresholds from the mean of the seen animals with normal hearing.

    Raises:
        ValueError: If thresholds are missing.
    """
    recording = cohort.animal(name)
    return shift_from_normal(
        cohort, name, recording.thresholds_db_spl, recording.abr_frequencies_hz
    )


def shift_from_normal(
    cohort: Cohort,
    name: str,
    thresholds_db_spl: Tensor | None,
    frequencies_hz: Sequence[float] | None,
) -> Audiogram:
    """Shift of thresholds from the mean of a cohort's seen animals with normal hearing.

    Args:
        cohort: Of the normal animals.
        name: Whose thresholds they are, for the message.
        thresholds_db_spl: `(F,)`.
        frequencies_hz: `(F,)`.

    Raises:
        ValueError: If thresholds are missing.
    """
    animals = [cohort.animal(other) for other in cohort.animals("seen")]
    normal = [a.thresholds_db_spl for a in animals if a.status == "NH"]
    measured = [thresholds for thresholds in normal if thresholds is not None]
    complete = measured and len(measured) == len(normal)
    if thresholds_db_spl is None or frequencies_hz is None or not complete:
        raise ValueError(f"{name}: thresholds of it and of seen normal animals are needed")
    mean = torch.stack(measured).mean(0)
    return Audiogram.from_thresholds(thresholds_db_spl, frequencies_hz, mean)


def audiograms_of(facts: ModelFacts) -> list[Audiogram] | None:
    """Of the animals of a model, from what it says of them; None if it does not say it."""
    measured, frequencies_hz = facts.thresholds_db_spl, facts.abr_frequencies_hz
    if measured is None or frequencies_hz is None or not facts.normal:
        return None
    mean = measured[torch.tensor([name in facts.normal for name in facts.animals])].mean(0)
    return [Audiogram.from_thresholds(row, frequencies_hz, mean) for row in measured]
