"""A listener that a response model was not trained on: θ, and a gain of each channel, fitted."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from icsim.channel_gains import Prior, adapted, broad
from icsim.fitting import Cost, Fit, descend
from icsim.frames import Frames
from icsim.recording import UNMATCHED
from icsim.seeds import seeded
from icsim.store import Cohort

from .listener_cost import ListenerCost, listener_cost
from .matching import rematch
from .response import ResponseModel
from .subjects import Subjects


@dataclasses.dataclass(frozen=True)
class FittedListener:
    """What was fitted of one animal."""

    search: Fit
    """The search for θ, of channels as the model has them."""
    theta: Tensor
    """`(P,)`."""
    cost: ListenerCost
    """Of the channels as they were matched last."""
    matching: Tensor
    """Slots of the channels, `(C,)`."""
    prior: Prior
    """Of the channels' gains and offsets."""
    gains: Tensor | None
    """Gain and offsets of the channels that are not set apart, `(n, K)`; None without."""

    def all_gains(self) -> Tensor | None:
        """Gain and offsets of all channels, `(C, K)`; those set apart have the model's."""
        if self.gains is None:
            return None
        every = broad(self.gains.shape[1]).mean.repeat(len(self.matching), 1)
        every[self.matching != UNMATCHED] = self.gains
        return every

    def profile(self, theta: Tensor) -> Tensor:
        """The cost of candidates `(n, P)`, with gains fitted for each if there are any."""
        if self.gains is None:
            return self.cost(theta)
        return self.cost.profile(theta, self.prior, self.gains)


Search = Callable[[Cost, Tensor], Fit]
"""Finds θ by its cost, given the θ of known listeners `(A, P)`."""


def fit_listener(
    model: ResponseModel,
    batch: dict[str, Tensor],
    matching: Tensor,
    prior: Prior,
    search: Search,
    rounds: int = 0,
    channel_gains: bool = True,
) -> FittedListener:
    """Find θ, match channels again in turns with it, and fit their gains beside it.

    Args:
        model: With condition `theta`.
        batch: Sounds and counts of one animal, as `first_frames` gives them.
        matching: Model channel of each of its channels, `(C,)`.
        prior: Of the channels' gains and offsets.
        search: Finds θ.
        rounds: How often channels are matched again, and θ is fitted on.
        channel_gains: Whether gains and offsets are fitted beside θ.
    """
    cost = _cost(model, batch, matching)
    fit = search(cost, model.listeners.at().detach())
    fitted = FittedListener(fit, fit.theta, cost, matching, prior, None)
    for _ in range(rounds):
        fitted = matched_again(model, batch, fitted)
    return with_channel_gains(fitted) if channel_gains else fitted


def matched_again(
    model: ResponseModel, batch: dict[str, Tensor], fitted: FittedListener
) -> FittedListener:
    """Match channels with the slots that predict them best for a fit, and fit on from there."""
    answers = batch["counts"][:, 0]
    subject = Subjects(theta=fitted.theta[None, None])
    matching = rematch(model, batch["sound"], answers, subject, fitted.matching)
    return with_matching(model, batch, fitted, matching)


def with_matching(
    model: ResponseModel, batch: dict[str, Tensor], fitted: FittedListener, matching: Tensor
) -> FittedListener:
    """Fit on from a fit with other slots of the channels, `(C,)`."""
    cost = _cost(model, batch, matching)
    theta = descend(cost, fitted.theta[None], 20).theta
    return dataclasses.replace(fitted, theta=theta, cost=cost, matching=matching)


def with_channel_gains(fitted: FittedListener, turns: int = 3) -> FittedListener:
    """Fit gains of channels and θ on, in turns, so that both are the most probable together."""
    cost, theta, prior, gains = fitted.cost, fitted.theta, fitted.prior, None
    for _ in range(turns):
        gains, uncertain = cost.fit_gains(theta, prior, gains)
        prior = adapted(fitted.prior, gains, uncertain)
        now = functools.partial(cost, gains=gains)
        theta = descend(now, theta[None], 15).theta
    gains, _ = cost.fit_gains(theta, prior, gains)
    return dataclasses.replace(fitted, theta=theta, prior=prior, gains=gains)


@torch.no_grad()
def baselines(
    fitted: FittedListener, others: Tensor, names: Sequence[str]
) -> dict[str, float | str]:
    """What the fit costs, beside listeners that need none; gains of channels are fitted for each.

    Args:
        fitted: The fit.
        known: θ of the seen animals, `(A, P)`.
        names: Theirs.

    Returns:
        Nats a bin and channel of the fit, of the seen animals' mean and of the best of them, and
        which it is.
    """
    mean, fit = others.mean(0, keepdim=True), fitted.theta[None]
    costs = fitted.profile(torch.cat([fit, mean, others])).tolist()
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
    first_hours: float = 2.0,
    seconds: float = 30.0,
    seconds_a_sound: float = 15.0,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Some training frames that an animal heard early, evenly from all sounds.

    Args:
        cohort: Where they are.
        animal: Who heard them.
        context_bins: Of the model. Source of the default: arXiv 2506.03088.
        first_hours: From what was heard in this time [h].
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
