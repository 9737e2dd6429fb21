"""A listener that a response model was not trained on, fitted to what it answered."""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from icsim.channel_gains import Prior, adapted, broad, fit_gains
from icsim.fitting import Cost, Fit, Progress
from icsim.frames import Frames
from icsim.recording import UNMATCHED
from icsim.seeds import seeded
from icsim.store import Cohort

from .listener_cost import CORRELATED_S, ListenerCost, listener_cost
from .listener_posterior import (
    Posterior,
    fisher_scoring,
    known_states,
    listener_prior,
    modes,
)
from .matching import rematch
from .readouts import require_categorical
from .response import ResponseModel
from .subjects import Subjects


@dataclasses.dataclass(frozen=True)
class FittedListener:
    """What was fitted of one animal."""

    modes: list[Posterior]
    """The most probable listeners that differ, best first, with gains of channels if fitted."""
    cost: ListenerCost
    """Of the channels as they were matched last."""
    hours: Tensor
    """When each frame was presented [h], `(B,)`."""
    matching: Tensor
    """Slots of the channels, `(C,)`."""
    gain_prior: Prior | None
    """Of the gains and offsets of this brain's channels; None if none were fitted."""

    @property
    def posterior(self) -> Posterior:
        """The best mode."""
        return self.modes[0]

    @property
    def theta(self) -> Tensor:
        """θ when the recording began, `(P,)`."""
        return self.posterior.theta()

    def all_gains(self) -> Tensor | None:
        """Gain and offsets of all channels, `(C, K)`; those set apart have the model's."""
        gains = self.posterior.gains
        return None if gains is None else _of_all(gains, self.matching)

    @torch.no_grad()
    def costs(self, states: Tensor) -> Tensor:
        """What listeners of states `(n, D)` cost, each with its best gains if any were fitted.

        Returns:
            Nats a bin and channel, `(n,)`.
        """
        theta = self.posterior.prior.theta(states, self.hours)
        if self.gain_prior is None:
            return self.cost(theta)
        return self.cost.profile(theta, self.gain_prior, self.posterior.gains)

    def landscape(self, theta: Tensor) -> Tensor:
        """What others cost that begin at θ `(n, P)`, with the fit's drift and gains, `(n,)`;
        differentiable."""
        begun, parameters = self.posterior, theta.shape[1]
        shifts = begun.mean[parameters:].expand(len(theta), -1)
        states = torch.cat([theta.logit(eps=1e-6), shifts], 1)
        return self.cost(begun.prior.theta(states, self.hours), begun.gains)


Search = Callable[[Cost, Tensor], Fit]
"""Finds θ by its cost, given the θ of known listeners `(A, P)`."""


def fit_listener(
    model: ResponseModel,
    batch: dict[str, Tensor],
    matching: Tensor,
    gain_prior: Prior,
    search: Search | None = None,
    rounds: int = 0,
    channel_gains: bool = True,
    starts: int = 1,
    drift: bool = True,
    progress: Progress | None = None,
) -> FittedListener:
    """Fit θ, how it drifts, and gains of channels together, and say how sure that is.

    Args:
        model: With condition `theta`.
        batch: Sounds, counts and hours of one animal, as `first_frames` gives them.
        matching: Model channel of each of its channels, `(C,)`.
        gain_prior: Of the channels' gains and offsets.
        search: Finds the θ to begin from; the known listeners that cost least if not given.
        rounds: How often channels are matched again with what was fitted, and fitted on.
        channel_gains: Whether gains and offsets are fitted beside θ.
        starts: Listeners to begin from, each of which may lead to another mode.
        drift: Whether θ moves with time.
        progress: Called after each evaluation.
    """
    cost, hours = _cost(model, batch, matching), batch["hours"][:, 0]
    if not drift:
        hours = torch.zeros_like(hours)
    listeners = listener_prior(model.listeners)
    prior = gain_prior if channel_gains else None
    if search is None:
        begun = known_states(cost, hours, listeners, model.listeners)[:starts]
    else:
        logits = search(cost, model.listeners.at().detach()).theta.logit(eps=1e-3)
        begun = torch.cat([logits, listeners.mean[len(logits) :]])[None]
    different = modes(
        [fisher_scoring(cost, hours, listeners, prior, state, progress=progress) for state in begun]
    )
    best = different[0]
    # How much this brain's channels differ is seen only now.
    if prior is not None and best.gains is not None and best.gain_covariance is not None:
        prior = adapted(prior, best.gains, best.gain_covariance)
    reached = [
        fisher_scoring(cost, hours, listeners, prior, one.mean, one.gains, progress=progress)
        for one in different
    ]
    fitted = FittedListener(modes(reached), cost, hours, matching, prior)
    for _ in range(rounds):
        fitted = matched_again(model, batch, fitted)
    return fitted


@torch.no_grad()
def fit_gains_alone(
    model: ResponseModel,
    batch: dict[str, Tensor],
    matching: Tensor,
    listener: Subjects,
    prior: Prior,
) -> Tensor:
    """Gains and offsets of all channels of one animal, for a listener that is given, `(C, K)`.

    Args:
        model: Of any condition that shares channels.
        batch: Sounds and counts of the animal, as `first_frames` gives them.
        matching: Model channel of each of its channels, `(C,)`.
        listener: Whom the model is asked for.
        prior: Of the channels' gains and offsets.
    """
    matched = matching != UNMATCHED
    listener = dataclasses.replace(listener, matching=matching[matched][None])
    predicted = model.predict(model.latent(batch["sound"]), listener, model.context_bins)
    observed = (
        require_categorical(predicted).logits()[:, 0],
        batch["counts"][:, 0][:, matched],
    )
    correlated = CORRELATED_S * model.clock.bin_rate_hz
    gains, covariance = fit_gains(*observed, prior, correlated)
    gains, _ = fit_gains(*observed, adapted(prior, gains, covariance), correlated, gains)
    return _of_all(gains, matching)


def _of_all(gains: Tensor, matching: Tensor) -> Tensor:
    """Gains `(n, K)` of the channels that are matched, with the model's of the rest, `(C, K)`."""
    every = broad(gains.shape[1]).mean.repeat(len(matching), 1)
    every[matching != UNMATCHED] = gains
    return every


def matched_again(
    model: ResponseModel, batch: dict[str, Tensor], fitted: FittedListener
) -> FittedListener:
    """Match channels with the slots that predict them best for a fit, and fit on from there."""
    theta = fitted.posterior.prior.theta(fitted.posterior.mean[None], fitted.hours)
    subject = Subjects(theta=theta.mean(0, keepdim=True))
    matching = rematch(model, batch["sound"], batch["counts"][:, 0], subject, fitted.matching)
    return with_matching(model, batch, fitted, matching)


def with_matching(
    model: ResponseModel, batch: dict[str, Tensor], fitted: FittedListener, matching: Tensor
) -> FittedListener:
    """Fit on from a fit with other slots of the channels, `(C,)`."""
    cost, begun = _cost(model, batch, matching), fitted.posterior
    again = fisher_scoring(
        cost, fitted.hours, begun.prior, fitted.gain_prior, begun.mean, begun.gains
    )
    return dataclasses.replace(fitted, modes=[again], cost=cost, matching=matching)


@torch.no_grad()
def baselines(
    fitted: FittedListener, states: Tensor, names: Sequence[str]
) -> dict[str, float | str]:
    """What the fit costs, beside listeners that need none; gains of channels are fitted for each.

    Args:
        fitted: The fit.
        states: Of the seen animals, `(A, D)`.
        names: Theirs.

    Returns:
        Nats a bin and channel of the fit, of the seen animals' mean and of the best of them, and
        which it is.
    """
    mean, fit = states.mean(0, keepdim=True), fitted.posterior.mean[None]
    costs = fitted.costs(torch.cat([fit, mean, states])).tolist()
    best = min(range(len(names)), key=lambda place: costs[2 + place])
    return {
        "fit": costs[0],
        "mean of the seen animals": costs[1],
        "best seen animal": costs[2 + best],
        "name of the best": names[best],
    }


def _cost(model: ResponseModel, batch: dict[str, Tensor], matching: Tensor) -> ListenerCost:
    return listener_cost(model, batch["sound"], batch["counts"][:, 0], matching)


def stored_matching(cohort: Cohort, animal: str, alignment: str, model: ResponseModel) -> Tensor:
    """Slots of an animal's channels in a model, `(C,)`.

    Raises:
        ValueError: If the animal is not aligned, or not with this model's channels.
    """
    aligned = cohort.animal(animal).require_alignment(alignment)
    if aligned.slots != model.config.channels:
        raise ValueError(
            f"{animal} is aligned with {aligned.slots} channels, the model has "
            f"{model.config.channels}: align as before its training"
        )
    return aligned.matching


def first_frames(
    cohort: Cohort,
    animal: str,
    context_bins: int = 64,
    first_hours: float | None = None,
    seconds: float = 30.0,
    seconds_a_sound: float = 15.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Some training frames that an animal was presented with, evenly from all sounds.

    Args:
        cohort: Where they are.
        animal: Who heard them.
        context_bins: Of the model. Source of the default: arXiv 2506.03088.
        first_hours: From what was presented in this time [h], if not from all.
        seconds: At most so much in all [s].
        seconds_a_sound: At most so much of each sound [s].
        seed: Of the choice.

    Raises:
        ValueError: If it heard nothing in that time.
    """
    frames = Frames(cohort, [animal], "train", context_bins, max_hours=first_hours)
    frame_s = frames.samples / cohort.clock.sample_rate_hz
    each, most = int(seconds_a_sound / frame_s), int(seconds / frame_s)
    taken: dict[int, int] = {}
    chosen = []
    for index in torch.randperm(len(frames), generator=seeded(seed)).tolist():
        sound = frames.sound_of(index)
        taken[sound] = taken.get(sound, 0) + 1
        if taken[sound] <= max(1, each):
            chosen.append(index)
    return frames.read(sorted(chosen[: max(1, most)]))


REACH = 0.6
"""Half width of a loss surface, in units of θ."""


@torch.no_grad()
def plane(cost: Cost, others: Tensor, centre: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """The cost on a grid, `(points, points)`, and the directions of its axes, `(2, P)`."""
    directions = torch.linalg.svd(others - others.mean(0), full_matrices=False)[2][:2]
    if len(directions) < 2:
        directions = torch.eye(max(2, others.shape[-1]))[:2, : others.shape[-1]]
    grid = torch.linspace(-REACH, REACH, points)
    second, first = torch.meshgrid(grid, grid, indexing="ij")
    candidates = torch.stack([first, second], -1).flatten(0, 1) @ directions + centre
    losses = torch.cat([cost(part.clamp(0, 1)) for part in candidates.split(8)])
    return losses.view(points, points), directions
