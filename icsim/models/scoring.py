"""How well a response model predicts sounds that it was not trained on."""

import dataclasses
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from icsim.channel_gains import with_gains
from icsim.frames import recording_pairs
from icsim.metrics import expected_counts, feve, histogram_divergence, normalised_correlation
from icsim.store import Cohort
from icsim.theta import Drift

from .facts import ModelFacts
from .response import ResponseModel
from .subjects import Subjects

Latents = dict[int, Tensor]
"""By sound, what a model makes of it before it knows who hears it."""


@dataclasses.dataclass(frozen=True)
class Listener:
    """An animal as a model is asked for it: one of its own, or another one."""

    matching: Tensor
    """Model channel of each of its channels, those below 0 left out, `(C,)`."""
    place: int | None = None
    """Place among the animals that the model was trained on."""
    theta: Tensor | None = None
    """θ of another one, `(P,)`."""
    thresholds_db_spl: Tensor | None = None
    """Thresholds of another one [dB SPL], `(F,)`."""
    gains: Tensor | None = None
    """Gains and offsets of its channels, `(C, K)`, if they were fitted."""
    drift: Drift | None = None
    """How θ of another one moves, if that was fitted."""

    def subjects(self, facts: ModelFacts, hours: Tensor) -> Subjects:
        """This animal at one time `(1,)` [h]."""
        if self.place is not None:
            return facts.subjects([self.place], hours[None])
        theta, thresholds = self.theta, self.thresholds_db_spl
        if theta is not None and self.drift is not None:
            theta = self.drift.theta(theta, hours)[0]
        return Subjects(
            theta=None if theta is None else theta[None, None],
            thresholds_db_spl=None if thresholds is None else thresholds[None, None],
            matching=self.matching[None],
        )


@torch.no_grad()
def encode(model: ResponseModel, cohort: Cohort, split: str = "test") -> Latents:
    """Latents `(1, Z, N)` of all sounds of a split, with the context of their beginning."""
    context = (model.context_bins * model.clock.bin_samples, 0)
    return {
        sound.index: model.latent(functional.pad(cohort.pressure(sound.index), context)[None])
        for sound in cohort.sounds
        if sound.split == split
    }


def score_animal(
    model: ResponseModel,
    facts: ModelFacts,
    cohort: Cohort,
    name: str,
    listener: Listener,
    latents: Latents,
    split: str = "test",
) -> list[dict[str, Any]]:
    """Scores of each sound that an animal heard twice or more.

    Returns:
        A row a sound: name, kind, trials, FEVE (None where nothing can be explained), CCnorm (the
        same) and KL [nats].
    """
    return [
        _score_sound(model, facts, cohort, name, listener, latents[sound], sound, trials)
        for sound, trials in recording_pairs(cohort, name, split)
    ]


@torch.no_grad()
def expect(
    model: ResponseModel, facts: ModelFacts, listener: Listener, latent: Tensor, hours: Tensor
) -> Tensor:
    """Probabilities of counts at one time: `(1, Z, N)`, `(1,)` [h] to `(C, K, N)`."""
    predicted = model.predict(latent, listener.subjects(facts, hours), model.context_bins)
    if listener.gains is not None:
        predicted = with_gains(predicted, listener.gains)
    return predicted.log_probabilities()[0, 0, : len(listener.matching)].exp()


def _score_sound(
    model: ResponseModel,
    facts: ModelFacts,
    cohort: Cohort,
    name: str,
    listener: Listener,
    latent: Tensor,
    sound: int,
    trials: list[int],
) -> dict[str, Any]:
    animal, matched = cohort.animal(name), listener.matching >= 0
    largest = model.config.readout.classes - 1
    counts = torch.stack([animal.counts(trial).T[matched] for trial in trials]).clamp(max=largest)
    hours = torch.tensor([animal.presentations[trial].time_h for trial in trials])
    # One time after the other: twenty repeats of half a minute would not fit into memory.
    moves = listener.place is not None or listener.drift is not None
    times = hours.split(1) if moves else [hours[:1]]
    every = (expect(model, facts, listener, latent, time)[matched] for time in times)
    probability = sum(every, start=torch.zeros(())) / len(times)
    expected = expected_counts(probability.log())
    try:
        explained = feve(expected, counts).item()
    except ValueError:
        explained = None
    correlation = normalised_correlation(expected, counts).nanmedian()
    return {
        "sound": cohort.sounds[sound].name,
        "kind": cohort.sounds[sound].kind,
        "trials": len(trials),
        "feve": explained,
        "ccnorm": correlation.item() if correlation.isfinite() else None,
        "kl": histogram_divergence(probability, counts).item(),
    }
