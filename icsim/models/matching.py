"""Channels of a brain brought to those of a model that predict them best."""

import dataclasses

import torch
from torch import Tensor

from icsim.alignment import negative_log_likelihood, transport
from icsim.frames import Frames
from icsim.recording import UNMATCHED

from .facts import ModelFacts
from .response import ResponseModel
from .subjects import Subjects


@torch.no_grad()
def channel_costs(model: ResponseModel, sound: Tensor, counts: Tensor, subject: Subjects) -> Tensor:
    """How badly each model channel predicts each channel of one listener.

    Args:
        model: With a channel for each that brains have in common.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the listener answered, `(B, C, N)`.
        subject: The listener alone, without a matching.

    Returns:
        Mean negative log-likelihood [nats a bin], `(C, model channels)`.
    """
    total = torch.zeros(counts.shape[1], model.readout.slots, device=sound.device)
    largest = model.config.readout.classes - 1
    for part, answers in zip(sound.split(4), counts.split(4), strict=True):
        predicted = model.predict(model.latent(part), subject, model.context_bins)
        every = predicted.log_probabilities()[:, 0]
        total += len(part) * negative_log_likelihood(every, answers.clamp(max=largest))
    return total / len(sound)


def rematch(
    model: ResponseModel,
    sound: Tensor,
    counts: Tensor,
    subject: Subjects,
    matching: Tensor,
    capacity: float = 3.0,
) -> Tensor:
    """Bring each channel of one listener to a model channel that predicts its counts well.

    Args:
        model: With a channel for each that brains have in common.
        sound: Frames with context [Pa], `(B, T)`.
        counts: What the listener answered, `(B, C, N)`.
        subject: The listener alone, without a matching.
        matching: Model channels so far, `(C,)`; those set apart stay so.
        capacity: Of model channels, see `icsim.alignment.transport`.

    Returns:
        `(C,)`.
    """
    cost, matched = channel_costs(model, sound, counts, subject), matching != UNMATCHED
    brought = matching.clone()
    brought[matched] = transport(cost[matched], capacity).to(matching)
    return brought


def rematch_animals(
    model: ResponseModel, facts: ModelFacts, frames: Frames, most: int = 120
) -> ModelFacts:
    """Match the channels of all animals of a model again, by some frames that they heard."""
    device = next(model.parameters()).device
    batch = frames.read(range(0, len(frames), -(-len(frames) // most)))
    matching = []
    for animal, slots in enumerate(facts.matching):
        here = batch["heard"][:, animal]
        sound, counts = (batch[key][here].to(device) for key in ("sound", "counts"))
        hours = batch["hours"][here, animal].mean()[None, None].to(device)
        subject = dataclasses.replace(facts.subjects([animal], hours, device=device), matching=None)
        matching.append(rematch(model, sound, counts[:, animal], subject, slots))
    return dataclasses.replace(facts, matching=torch.stack(matching))
