"""Frozen models of hearing that an aid is trained through.

A learned midbrain, the auditory model of human ears, or a simulated animal.
"""

import dataclasses

import torch
from torch import Tensor, nn

from compensation.auditory import AuditoryModel, squared_difference
from compensation.listener import from_audiogram
from icsim.audiogram import Audiogram
from icsim.fits import Fit
from icsim.loss import ResponseLoss
from icsim.models.listener_space import ListenerSpace, listener_space
from icsim.simulation.animal import Animal, animal_from
from icsim.sound import SAMPLE_RATE
from icsim.store import Cohort
from icsim.theta import sample_listeners

LEAST_PROBABILITY = 1e-12
"""Of a count, so that its logarithm is finite."""


@dataclasses.dataclass(frozen=True)
class HearingModel:
    """A frozen model of hearing, and what it knows of listeners."""

    loss: ResponseLoss
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


def space_of(path: str) -> ListenerSpace:
    """A response model with its listeners, of the sample rate that aids are made for.

    Raises:
        ValueError: If it is of another, has no θ, or no animal with normal hearing: an aid needs to
            be told what to restore.
    """
    space = listener_space(path)
    if space.model.clock.sample_rate_hz != SAMPLE_RATE:
        raise ValueError(
            f"{path}: hears sound at {space.model.clock.sample_rate_hz:g} Hz, and aids are made "
            f"for {SAMPLE_RATE} Hz; train a model on recordings at that rate"
        )
    return space


def learned(path: str, fit: Fit | None = None) -> tuple[HearingModel, list[str]]:
    """A model of θ with its animals, or with one fitted listener; and the listeners' names.

    Args:
        path: The checkpoint.
        fit: Of that listener.

    Raises:
        ValueError: As `space_of`.
    """
    space = space_of(path)
    theta, deviation, names = space.theta, space.deviation, list(space.names)
    if fit:
        theta, names = fit.theta[None], [fit.name]
        deviation = torch.zeros_like(theta)
    return HearingModel(ResponseLoss(space.model), theta, deviation, space.normal), names


def modelled(audiograms: list[Audiogram]) -> HearingModel:
    """The auditory model of human ears, by audiograms."""
    listeners = torch.stack([from_audiogram(one) for one in audiograms])
    flat = torch.zeros(1, listeners.shape[1])
    return HearingModel(
        ResponseLoss(AuditoryModel(), squared_difference),
        listeners,
        torch.zeros_like(listeners),
        flat,
    )


def true(cohort: Cohort, name: str) -> HearingModel:
    """A simulated animal itself and its healthy twin, which no laboratory has."""
    one = torch.ones(1, 1)
    twins = Twins(animal_from(cohort.truth(name)))
    return HearingModel(ResponseLoss(twins), one, 0 * one, 0 * one)
