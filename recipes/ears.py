"""Through which ears an aid is trained: a learned midbrain, an auditory model, or a true one."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compensation.auditory import AuditoryModel, squared_difference
from compensation.listener import from_audiogram
from icsim.audiogram import Audiogram
from icsim.loss import ResponseLoss
from icsim.models.facts import ModelFacts
from icsim.models.load import load_theta_model
from icsim.simulation.animal import Animal, animal_from
from icsim.sound import SAMPLE_RATE
from icsim.store import Cohort
from icsim.theta import sample_listeners
from recipes.fits import Fit

LEAST_PROBABILITY = 1e-12
"""Of a count, so that its logarithm is finite."""


@dataclasses.dataclass(frozen=True)
class Ears:
    """A frozen model of hearing, and what it knows of listeners."""

    loss: nn.Module
    """`loss(sound, listener, target, skip_bins)` and `loss.respond(sound, listener)`."""
    listeners: Tensor
    """Means, one a listener, `(A, F)`."""
    deviation: Tensor
    """Standard deviations, `(A, F)`."""
    normal: Tensor
    """Listeners that others are restored to, `(n, F)`."""

    def draw(
        self, weights: Tensor, widening: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Listeners near a mixture `(B, A)` of those known, and a normal one for each, `(B, F)`."""
        drawn = sample_listeners(weights, self.listeners, self.deviation, widening, generator)
        # Healthy brains differ too: each is the reference in turn.
        chosen = torch.randint(len(self.normal), (len(weights),), generator=generator)
        return drawn, self.normal[chosen]


class Twins(nn.Module):
    """A true animal and its healthy twin as one model of two listeners: 1 impaired, 0 normal."""

    def __init__(self, animal: Animal):
        super().__init__()
        self.animal, self.healthy = animal, animal.healthy()

    def respond(self, sound: Tensor, listener: Tensor) -> Tensor:
        """Log-probabilities of counts, `(B, C, 5, N)`; all of `listener` `(B, 1)` must be alike."""
        if listener.min() != listener.max():
            raise ValueError("one animal of the two at a time")
        ear = self.animal if listener[0, 0] > 0.5 else self.healthy
        return ear.count_probabilities(sound).clamp(min=LEAST_PROBABILITY).log()


def learned(path: str, fit: Fit | None = None) -> tuple[Ears, list[str]]:
    """A model of θ with its animals, or with one fitted listener; and the listeners' names.

    Args:
        path: The checkpoint.
        fit: Of that listener.

    Raises:
        ValueError: If no animal hears normally, or the checkpoint does not say which one does: an
            aid needs to know what to restore; or if it is of another sample rate than aids are.
    """
    model, facts = load_theta_model(path)
    if model.clock.sample_rate_hz != SAMPLE_RATE:
        raise ValueError(
            f"{path}: hears sound at {model.clock.sample_rate_hz:g} Hz, and aids are made for "
            f"{SAMPLE_RATE} Hz; train a model on recordings at that rate"
        )
    theta, deviation = model.listeners.at().detach(), model.listeners.deviation.detach()
    healthy = [name in facts.normal for name in facts.animals]
    if not any(healthy):
        raise ValueError(f"{path}: knows no animal with normal hearing to restore others to")
    normal = theta[torch.tensor(healthy)]
    if fit:
        theta = fit.theta[None]
        deviation = torch.zeros_like(theta)
    names = [fit.name] if fit else list(facts.animals)
    return Ears(ResponseLoss(model), theta, deviation, normal), names


def modelled(audiograms: list[Audiogram]) -> Ears:
    """The auditory model of human ears, by audiograms."""
    listeners = torch.stack([from_audiogram(one) for one in audiograms])
    flat = torch.zeros(1, listeners.shape[1])
    return Ears(
        ResponseLoss(AuditoryModel(), squared_difference),
        listeners,
        torch.zeros_like(listeners),
        flat,
    )


def true(cohort: Cohort, name: str) -> Ears:
    """A simulated animal itself and its healthy twin, which no laboratory has."""
    one = torch.ones(1, 1)
    twins = Twins(animal_from(cohort.truth(name)))
    return Ears(ResponseLoss(twins), one, 0 * one, 0 * one)


def audiogram(cohort: Cohort, name: str) -> Audiogram:
    """Shift of an animal's thresholds from the mean of the seen animals with normal hearing.

    Raises:
        ValueError: If thresholds are missing.
    """
    own = cohort.animal(name)
    return shift_from_normal(cohort, name, own.thresholds_db_spl, own.abr_frequencies_hz)


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
    if thresholds_db_spl is None or not normal or any(t is None for t in normal):
        raise ValueError(f"{name}: thresholds of it and of seen normal animals are needed")
    mean = torch.stack(normal).mean(0)
    return Audiogram.from_thresholds(thresholds_db_spl, frequencies_hz, mean)


def audiograms(facts: ModelFacts) -> list[Audiogram] | None:
    """Of the animals of a model, from what it says of them; None if it does not say it."""
    measured, frequencies_hz = facts.thresholds_db_spl, facts.abr_frequencies_hz
    if measured is None or frequencies_hz is None or not facts.normal:
        return None
    mean = measured[torch.tensor([name in facts.normal for name in facts.animals])].mean(0)
    return [Audiogram.from_thresholds(row, frequencies_hz, mean) for row in measured]
